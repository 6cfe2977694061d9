"""The register `uncertainty`: is the speaker unsure whether something is so?"""

from collections.abc import Sequence

from moeprobe.probes.cues import Cue, cue
from moeprobe.probes.english import reads_as_english
from moeprobe.probes.probe import Level, Passage, Reading
from moeprobe.probes.registers._beside import FromFiles
from moeprobe.probes.weighing import Weighed, marked, weigh_sentences

_ADVERB = r"(?: (?:not|also|well|still|even|indeed|in fact|have|just|\w{3,12}ly))*"
_WH = r"(?:whether|if|how|why|who|whom|what|which|when|where|that|of|about)"

# The semantic classes of uncertainty cues of Szarvas et al. (2012), as annotated in BioScope (Vincze et al. 2008) and
# CoNLL-2010 (Farkas et al. 2010): epistemic ("may", "probably"), doxastic ("is believed to"), and the speaker's own
# lack of knowledge. Conditions ("if you press it") and investigation ("we examined whether") are left out: they do not
# say that the speaker doubts. Weights were set by hand on uncertainty.jsonl.
BIAS = -4.0
CUES: tuple[Cue, ...] = (
    cue(
        "may be so",
        5.5,
        rf"(?<!\byou )\b(?-i:may){_ADVERB} (?!i\b|we\b|you\b|he\b|she\b|not\b)[a-z]{{2,}}",
    ),
    cue(
        "might be so",
        5.5,
        rf"(?<!\byou )(?<!\bher )(?<!\bhis )(?<!\bits )(?<!\btheir )(?<!\bmy )(?<!\bthe )\bmight{_ADVERB} "
        r"(?!is\b|was\b|i\b|we\b|you\b|not\b)[a-z]{2,}",
    ),
    cue(
        "you may have it",
        5.5,
        r"\byou (?:may|might|could)(?: well| also)? (?:have (?:an?|the|been)|be (?:right|wrong|an?))\b",
    ),
    cue(
        "could be so",
        5.5,
        r"(?<!\byou )(?<!if only )\bcould (?:also |well |still |possibly |perhaps |theoretically |even )*"
        r"(?:be (?!\w+ to me\b)|have (?:been|had|\w+ed)\b|mean\b|play\b|reflect\b|indicate\b|explain\b|point\b|"
        r"result\b|"
        r"come from\b|be\b)",
    ),
    cue(
        "perhaps",
        5.5,
        r"\b(?:probably|possibly|perhaps|maybe|presumably|apparently|supposedly|allegedly|conceivably|seemingly|"
        r"purportedly|plausibly|in all likelihood|most likely|very likely|quite likely|likely(?= (?:to|that|due|"
        r"because|"
        r"from|an?|the|in|by|\w+s\b))|(?:is|are|was|were|seems) (?:un)?likely|unlikely|potentially|doubtful)\b"
        r"(?! (?:lads|story)\b)(?<!the doubtful)",
    ),
    cue(
        "seems",
        5.5,
        r"\b(?:seems?|seemed)\b|\b(?:appears?|appeared) (?:to|as if|as though|that|not to)\b|"
        r"\b(?:it|there) (?:would|does) (?:appear|seem)\b",
    ),
    cue(
        "evidence hints",
        5.5,
        r"\b(?:results?|findings?|data|evidence|stud(?:y|ies)|research|analys[ei]s|this|these|which|signs?|clues?)(?: "
        r"\w+){0,3} "
        r"(?:suggests?|suggested|hints? at|points? to(?:ward)?|impl(?:y|ies))\b|"
        r"\bevidence (?:is|remains) (?:mixed|weak|thin|limited|inconclusive|scarce)\b|\binconclusive\b",
    ),
    cue(
        "is held to be",
        5.0,
        r"\b(?:is|are|was|were|been|be|it's)(?: \w{3,12}ly| often| also)* (?:believed|thought|said|rumou?red|presumed|"
        r"assumed|"
        r"suspected|hypothesi[sz]ed|estimated|alleged|speculated) (?:to|that)\b|\bhypothesi[sz]e\b|\bspeculat(?:e|ed|"
        r"ion)\b",
    ),
    cue(
        "is not sure",
        6.0,
        r"\b(?:i|we)(?:'m| am|'re| are| remain| was)(?: \w{2,12}ly| still)* (?:not (?:\w+ly |so |too |at all |quite "
        r")?(?:sure|"
        r"certain)|unsure|uncertain|in doubt|guessing|not aware)\b(?! of (?:my|our)sel)|\bnot (?:100% |entirely |quite "
        r")?"
        r"(?:sure|certain) (?:whether|if|how|why|who|what|which|when|where)\b(?<!she was)",
    ),
    cue(
        "does not know",
        6.0,
        r"\b(?:i|we|scientists|historians|researchers|experts|scholars)(?: \w{2,12}ly| still)* (?:do not|don't|cannot|"
        r"can't|"
        r"could not|couldn't|can not|am unable to|'m unable to)(?: \w{2,12}ly| yet)? (?:know|tell|say|confirm|verify|"
        r"determine|be (?:sure|certain)|rule out|recall|predict|agree)\b(?! how (?:to thank|much i|grateful))(?! you "
        r"how| no\b)",
    ),
    cue(
        "nobody knows",
        6.0,
        r"\b(?:no ?one|nobody|none of us)(?: \w{2,12}ly| yet)? (?:knows|knew|can (?:say|tell)|has (?:found|"
        r"proved|proven|seen))\b",
    ),
    cue(
        "is unknown",
        6.0,
        r"\b(?:is|are|was|were|remains?|remained|stays?|still)(?: \w{3,12}ly| still| yet)* (?:unclear|unknown|"
        r"uncertain|"
        r"undetermined|unresolved|unproven|unsettled|disputed|debated|contested|a mystery|an open question|not "
        r"(?:\w+ly |yet |"
        r"entirely |fully )?(?:clear|known|certain|settled|proven|established)|(?:not|un)(?: \w{3,12}ly| yet|fully| "
        r"well) understood)\b|\bof (?:uncertain|unknown|"
        r"doubtful|disputed) \w+|\bopen question\b|\bit(?:'s| is) anyone's guess\b",
    ),
    cue(
        "is in dispute",
        6.0,
        r"\b(?:experts|scholars|scientists|historians|researchers|opinions|sources|accounts)(?: still| often| \w+ly)* "
        r"(?:disagree|debate|differ|vary|dispute)\b|\bsome (?:doubt|uncertainty|debate|question)\b",
    ),
    cue(
        "is possible",
        5.5,
        r"\b(?:is|it's|was|seems|remains|be)(?: \w{2,12}ly| also| still| not| at least| just)* (?:possible|conceivable|"
        r"plausible|"
        rf"probable|likely) (?:{_WH}|to have)\b|\bpossibility (?:of|that)\b|\bthere(?:'s| is)(?: \w+)? a (?:\w+ "
        rf")?(?:chance|"
        r"possibility) (?:of|that)\b|\b(?:can't|cannot|can not) be ruled out\b",
    ),
    cue(
        "guesses",
        6.0,
        r"\b(?:my|at a|a wild|educated|the best) (?:best |rough |own )?(?:guess|estimate|hunch)\b|"
        r"\bi(?:'d| would| can only)?(?: \w{2,12}ly)? (?:guess|suspect|suppose|reckon|presume|imagine|speculate)\b"
        r"(?! (?:i should|i (?:must|have to|owe|can)|you|so\b))",
    ),
    cue("thinks", 2.0, r"\bi (?:think|believe)\b(?! you(?:r|'re| are| look| should)?\b)"),
    cue(
        "may be wrong",
        4.5,
        r"\bi (?:could|might|may) (?:be|well be|have been) (?:wrong|mistaken|misremembering|misreading)\b|"
        r"\b(?:if|unless) i(?:'m| am)? (?:remember|recall|not mistaken|mistaken|wrong)\b|"
        r"\bgive or take\b|\bdon't quote me\b",
    ),
    cue(
        "as far as known",
        5.5,
        r"\b(?:as|so) far as (?:i|we) (?:know|can (?:tell|see)|am aware)\b|\bto (?:the best of )?(?:my|our) "
        r"knowledge\b|"
        r"\b(?:if|as) (?:i|we) (?:remember|recall)(?: it)? correctly\b|\b(?:have|has) no (?:idea|way (?:of knowing|to "
        r"(?:know|"
        r"tell)))\b|\bno idea (?:whether|if|how|why|who|what|which|when|where)\b",
    ),
    cue(
        "is hard to say",
        6.0,
        r"\b(?:hard|difficult|impossible|not possible|too early|not easy)(?: for \w+)? to (?:say|tell|know|predict|be "
        r"(?:sure|"
        r"certain)|determine|pin down|verify|estimate)\b",
    ),
    cue("whether", 1.5, r"\bwhether\b"),
    # What looks like it and is not.
    cue(
        "politeness",
        -6.0,
        r"\b(?:perhaps|maybe|possibly),? (?:you (?:could|can|would|might)|we (?:could|can)|try|start|consider|use|take|"
        r"add)\b|"
        r"\b(?:could|would|can|may|might) (?:you|i|we)\b[^.!]{0,80}\?|\bi would be grateful\b|\byou (?:may|might) "
        r"(?:want|like|wish|prefer|consider|leave|start|go|use|find|also)\b|\byou could perhaps\b",
    ),
    cue(
        "reported",
        -5.0,
        r"\b(?!i\b|we\b|research\w*|evidence|scientists|experts|historians)\w{2,} (?:said|told|asked|claimed|"
        r"wondered|joked|replied)\b",
    ),
    cue(
        "certain",
        -4.0,
        r"\b(?:no|without(?: a)?|beyond(?: a| any)?) doubt\b|\bundoubtedly\b|\bmake sure\b|\bit is certain\b",
    ),
    cue("asks", -2.0, r"\?\W*$"),
)
SHARE = 4
"""A passage is as uncertain as the mean of its strongest sentences: one in this many, at least one."""


class Uncertainty(FromFiles):
    """A sentence's log odds are BIAS plus its cues; a passage's score is the mean of its strongest quarter."""

    name = "uncertainty"
    version = "1"
    level: Level = "sentence"
    definition = (
        "The speaker is not sure whether something is so, or says that it is not known: it may be, probably, seems to "
        "be, is thought to be, is unclear, I don't know who. What counts is doubt about facts. Politeness does not "
        "count "
        '("perhaps you could", "could you please", "you might want to"; the register hedging looks at mitigation), nor '
        'permission ("you may leave"), ability ("she could swim"), conditions ("if you press it, it opens"), chances '
        "that are computed, uncertainty as a topic, nor what others are said to doubt. A passage is judged by the mean "
        'of the strongest quarter of its sentences, at least one, so that one "may" does not make a long answer '
        "uncertain. English only."
    )

    def read(self, passage: Passage) -> Reading:
        """Score in [0, 1] with the uncertain sentences as spans; abstains on no text and on other languages."""
        if not passage.text.strip() or not reads_as_english(passage.text):
            return Reading(None)
        weighed = weigh_sentences(passage.text, CUES, BIAS)
        score = _strongest(weighed)
        return Reading(score, marked(weighed, "uncertainty"), "uncertainty" if score >= 0.5 else None)


def _strongest(weighed: Sequence[Weighed]) -> float:
    """The mean score of the strongest quarter of the sentences, rounded up to whole sentences."""
    scores = sorted((one.score for one in weighed), reverse=True)
    kept = scores[: -(-len(scores) // SHARE)]
    return round(sum(kept) / len(kept), 6)
