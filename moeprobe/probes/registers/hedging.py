"""The register `hedging`: does the writer hold back from full commitment to what is said?"""

import re

from moeprobe.probes.cues import Cue, cue, present
from moeprobe.probes.english import reads_as_english
from moeprobe.probes.probe import Level, Passage, Reading
from moeprobe.probes.registers._beside import FromFiles
from moeprobe.probes.registers._own_sentences import own_sentences, share_score

ENOUGH = 0.25
"""The share of hedged sentences from which a passage hedges."""

BIAS = -3.0
_I = r"\b(?:i|we)(?: (?:would|might|could|should|do|am|'m|\w{1,10}ly))?"
_PEOPLE = (
    r"(?:you|students?|visitors?|members?|guests?|users?|applicants?|employees?|players?|passengers?|customers?|anyone|"
    r"anybody|everyone|everybody|no one|nobody|children|parents|parties|tenants?|readers?|candidates|patients|staff|"
    r"function|method|it only)"
)
# Weights were set by hand in steps of half a unit on hedging.jsonl (beside this file). 3 and more hedges a sentence by
# itself; approximators and downtoners weigh less and hedge in company. The classes are those of Hyland (1998) -
# epistemic modals, verbs, adverbs, statements of limited knowledge - and Lakoff (1973) and Biber (1988: hedges,
# downtoners) for the words of degree.
CUES: tuple[Cue, ...] = (
    cue(
        "might",
        4.0,
        r"(?<!my )(?<!his )(?<!her )(?<!its )(?<!our )(?<!their )(?<!all )(?<!the )(?<!as he )(?<!magazine )"
        r"\bmight(?:n't)? (?:\w{2,})(?<!might was)(?<!might is)(?<!might of)",
    ),
    cue(
        "may of possibility",
        4.0,
        r"\bmay(?: not| also| well| still| even| or may not| \w{1,12}ly){0,2} (?:be|have|well|seem|appear|reflect|"
        r"reduce|cause|"
        r"lead|result|increase|affect|vary|depend|help|contribute|explain|indicate|want|need|differ|occur|happen|play|"
        r"follow|change|become|lose|feel|suggest|provide|require|prove|come|account|exist|involve|include|mean|find|"
        r"arise|represent|offer|improve|remain|take|make|wish|go|get|fall|rise|never|stem|benefit|experience|turn|"
        r"notice|sound|look|serve|act|work|show|simply|just|think)\b",
    ),
    cue(
        "could of possibility",
        4.0,
        r"\bcould (?:well|also|perhaps|possibly|probably|conceivably|potentially|easily|just|simply|maybe|still|"
        r"theoretically)\b"
        r"|\bcould (?:not )?(?:be|mean|explain|indicate|suggest|reflect|cause|lead to|result|come from|stem|account|"
        r"signal|imply|arise|affect|have \w+(?:ed|en|ne|me|ft|nt|ld|de|wn|st|ot|ut))\b",
    ),
    cue(
        "adverb of doubt",
        4.0,
        r"\b(?:perhaps|maybe|possibly|probably|presumably|apparently|seemingly|conceivably|arguably|supposedly|"
        r"plausibly|tentatively|theoretically|ostensibly)\b",
    ),
    cue(
        "likely",
        4.0,
        r"\b(?:is|are|was|were|be|seems?|looks?|more|most|very|quite|less|will|would|has|have|had|not|'s|'re|'ll|i|it) "
        r"(?:\w{1,10}ly )?(?:un)?likely(?! (?:colou?r|story|spot|place|lad|candidate))\b|\b(?:un)?likely (?:to|that|"
        r"because|"
        r"due|from|be|have|has|the|a|reflects?|comes?)\b|, (?:un)?likely\b|^likely\b|\bin all likelihood\b|"
        r"\bunlikely to\b",
    ),
    cue(
        "potential",
        3.0,
        r"\bpotentially\b|\b(?:potential|possible|plausible|likely|probable|tentative) (?:explanation|reason|cause|"
        r"reading|"
        r"interpretation|mechanism|link|factor|answer|culprit)s?\b(?<!probable cause)|\bprobable cause\b"
        r"(?! (?:hearing|affidavit|statement|standard|determination|exists?|to (?:search|arrest|"
        r"detain|stop|believe))\b)|\b(?:one|another|a|the) possibility\b|"
        r"\b(?:it|that|this)(?:'s| is| was| seems| remains| would be)? (?:also |quite |at least |just |not |"
        r"entirely )?(?:possible|conceivable|plausible|probable|doubtful|debatable)\b(?! to)",
    ),
    cue(
        "seem",
        4.0,
        r"\bseem(?:s|ed|ing)?\b(?! to (?:him|her|them)\b)(?! (?:is|are)\b)|\bit (?:would )?(?:appears?|looks?)(?:"
        r" as)? (?:that|as (?:if|though)|"
        r"if|like)\b|\bappears? (?:not )?to (?:be|have|\w+)\b|\b(?:would|does|do) appear\b|\bappears? "
        r"(?:\w+ly )?(?:consistent|likely|unlikely|related|safe|correct|wrong|plausible|stable|normal|older|younger|"
        r"limited)\b",
    ),
    cue(
        "looks like",
        3.0,
        r"\b(?:that|it|this|which|he|she|they)(?: \w+ly)?(?:'s)? (?:looks?|sounds?|feels?) (?:to me )?"
        r"(?:like|as (?:if|though))\b",
    ),
    cue(
        "verb of own belief",
        4.0,
        rf"{_I} (?:think|guess|suppose|suspect|reckon|imagine|assume|gather|hypothesi[sz]e|speculate|surmise|"
        r"presume|expect|doubt|hesitate)\b(?! (?:of|about|nothing|the world|i am|that i am)\b)"
        r"|\b(?:i|we)(?: would|'d)? (?:say|argue|lean|propose|suggest|venture|estimate|guess|bet)\b(?! you\b)(?! we\b)"
        r"|\b(?:i|we)(?: do)? (?:firmly )?believe\b(?! in\b)(?! you\b)|\bi feel (?:like|that|as)\b"
        r"|\bmy (?:guess|impression|understanding|sense|hunch|suspicion|feeling|bet|best guess) (?:is|would)\b|\bwe"
        r" tentatively\b"
        r"|, i (?:think|believe|guess|imagine|suppose),|, i (?:think|believe|guess|imagine|suppose)[.;?]",
    ),
    cue(
        "own view",
        3.0,
        r"\b(?:in|to) my (?:view|opinion|experience|mind|estimation|humble|judg\w+|reading|eyes)\b|\bit seems to"
        r" (?:me|us)\b"
        r"|\bfrom (?:what i|my (?:understanding|experience|perspective))\b|\bimo\b|\bimho\b|\bif (?:i|memory) "
        r"(?:remember|recall|am not|serves?|understand|had to|'m not)\b|\bif you ask me\b|\bas i understand it\b",
    ),
    cue(
        "limits of knowledge",
        4.0,
        r"\b(?:as|so) far as (?:i|we|anyone|one|is)(?: can| could)? ?(?:know|knows|tell|remember|recall|see|am aware|"
        r"understand|known)\b|\bto (?:my|our|the best of (?:my|our)) (?:knowledge|recollection|understanding|memory)\b"
        r"|\bi (?:could|may|might) be (?:wrong|mistaken|off|misremembering)\b|\b(?:i'm|i am|we are|we're) (?:no"
        r" expert|not "
        r"(?:an expert|a doctor|a lawyer))\b|\bdon't quote me\b|\bcorrect me if\b|\bhard to (?:say|tell|know|be sure|"
        r"judge|predict)\b"
        r"|\bdifficult to (?:say|tell|know|judge)\b|\bi (?:don't|do not) (?:really |quite )?know (?:if|whether|for"
        r" sure|for certain)\b",
    ),
    cue(
        "not sure",
        4.0,
        r"\b(?:i|we)(?:'m| am|'re| are|'d be| would be| was| were)?(?: still| honestly)? (?:not|never|hardly|less"
        r" than|fairly|pretty|"
        r"reasonably|quite|almost|cannot be|can't be)(?: \w{2,12}){0,2} (?:sure|certain|convinced|confident|"
        r"positive)\b|\bunsure\b"
        r"|\b(?:can't|cannot|couldn't|can not|could not) (?:be (?:\w+ )?(?:certain|sure|excluded|ruled out|"
        r"confirmed)|rule out|"
        r"exclude|say for (?:sure|certain))\b|\b(?:do|does|did)(?: not|n't) (?:exclude|rule out|prove|necessarily)\b",
    ),
    cue(
        "uncertain matter",
        3.5,
        r"\b(?:unclear|uncertain|inconclusive|not (?:entirely |quite |yet |at all |fully )?(?:clear|certain|conclusive|"
        r"settled|known)|not necessarily|open to (?:debate|question)|remains? (?:to be seen|open|in doubt)|anybody's"
        r" guess|"
        r"anyone's guess)\b|\bevidence (?:\w+ )?is (?:thin|weak|mixed|limited|scarce|slim)\b|\bwith (?:some |great"
        r" )?caution\b"
        r"|\bnot all of (?:this|that|it) is\b|\b(?:rough|ballpark) (?:estimate|guess|idea|figure)\b",
    ),
    cue(
        "chance",
        3.0,
        r"\b(?:a|some|any|every|fair|good|small|slight|real|decent|little) (?:chance|possibility|likelihood|"
        r"probability) "
        r"(?:that|of|you|it|he|she|they|we|i)\b|\bthere's a chance\b|\bchances are\b|\bi wonder (?:if|whether)\b",
    ),
    cue(
        "cautious evidence",
        3.5,
        r"\b(?:results?|findings?|data|evidence|stud(?:y|ies)|measurements?|observations?|this|these|analys[ei]s|"
        r"research|"
        r"records?|figures|letters|traces)(?: \w+){0,2} (?:suggests?|hints?|points? to|impl(?:y|ies)|"
        r"indicates?(?= that))\b(?! (?:a )?(?:walk|name|meeting))|\bgenerally (?:thought|believed|considered|held|"
        r"assumed) to\b|"
        r"\b(?:is|are) (?:widely |often |commonly )?(?:thought|believed|assumed|presumed|considered) to (?:be|have|"
        r"come)\b",
    ),
    cue(
        "tendency",
        3.5,
        r"\btends? (?:not )?to\b|\bhas a tendency\b|\bin (?:most|many|some|certain) (?:cases|instances|respects|"
        r"ways)\b",
    ),
    cue(
        "must of inference",
        3.0,
        r"\bmust have (?:\w+ly )?(?:been|\w+ed|left|gone|come|forgotten|lost|known|felt|taken|fallen|made|cost|"
        r"slipped)\b"
        r"|\bshould be (?:fine|okay|ok|enough|safe|about)\b",
    ),
    cue(
        "vague category",
        3.5,
        r"(?<!the )(?<!that )(?<!this )(?<!a )(?<!what )(?<!some )(?<!any )(?<!one )(?<!every )(?<!same )(?<!new"
        r" )(?<!each )"
        r"(?<!another )(?<!different )(?<!which )(?<!of )(?<!my )(?<!other )(?<!first )(?<!only )\b(?:sort|kind)"
        r" of\b(?! (?:you|person|thing)\b)|\bin a sense\b|\bin a way\b|"
        r"\bso to speak\b|\bas it were\b|\bto (?:some|a certain|a large|a great) (?:extent|degree)\b|\bmore or less\b|"
        r"\bsomething (?:like|along the lines)\b|\bgive or take\b|\byou could (?:\w+ )?say\b|\bloosely speaking\b|"
        r"\broughly speaking\b",
    ),
    cue("downtoner", 2.0, r"\b(?:somewhat|slightly|a (?:little|bit|tad)|partly|partially|fairly|rather(?! than))\b"),
    cue(
        "approximator",
        2.0,
        r"\b(?:roughly|approximately|around|about|almost|nearly|circa|some) (?:\d|(?:a|one|two|three|four|five|six|"
        r"seven|"
        r"eight|ten|twelve|twenty|thirty|forty|fifty|half|hundreds?|thousands?) )|\bor so\b|\broughly (?:agree|equal|"
        r"the same|half)\b"
        r"|\bsomewhere (?:between|around)\b|\bapproximately\b|\bor thereabouts\b",
    ),
    cue("attribution of frequency", 1.5, r"\b(?:generally|typically|usually|mostly|largely|often|mainly|in general)\b"),
    cue(
        "conditional politeness",
        2.0,
        r"\bi(?:'d| would) (?:say|guess|suggest|recommend|lean|hesitate)\b|\bworth (?:a try|checking|seeing)\b",
    ),
    # What looks like a hedge and is none.
    cue(
        "somebody else's doubt",
        -4.5,
        r"^(?!.{0,30}\b(?:i|we|me|my|our)\b)\W*(?:\w+ ){0,5}(?:said|says|claim(?:s|ed)|doubted|called|thought|"
        r"believed|told|wondered|"
        r"feared|asked|insisted|hoped|guessed|suggested)\b(?! to (?:be|have)\b)(?! by\b)",
    ),
    cue("seemed to a character", -4.0, r"\bseemed to (?:him|her|them)\b"),
    cue(
        "permission",
        -4.5,
        rf"^(?:\W*(?:\w+ ){{0,3}}){_PEOPLE} (?:may|might|could)(?: not| only)? (?!be\b|have\b|well\b|want\b|need\b|"
        rf"wish\b|also\b|find\b|"
        r"even\b|not be\b|feel\b|think\b|notice\b|experience\b|say\b|remember\b|know\b|lose\b|benefit\b|as well\b|"
        r"possibly\b|perhaps\b|probably\b)\w|^may (?:i|we|your?|the|all|he|she|they|god)\b"
        r"|\bmay only\b",
    ),
    cue(
        "the word itself",
        -4.5,
        r"^\W*(?:perhaps|maybe|might|may|probably) (?:was|is) (?:the|a|an|his|her|not)\b|\b(?:verb|adverb|word)s? of\b",
    ),
    cue(
        "certainty",
        -2.0,
        r"\b(?:there is|there's|with|have) (?:absolutely )?no doubt\b|\bdefinitely\b|\bwithout (?:question|doubt)\b",
    ),
    cue("request", -3.0, r"^(?:could|might|may|can) (?:you|i|we)\b"),
)  # fmt: skip


class Hedging(FromFiles):
    """A sentence hedges where BIAS plus its cues is not below 0; the score grows with the share of such sentences."""

    name = "hedging"
    version = "3"
    level: Level = "sentence"
    held_out_read = "again"
    definition = (
        "The writer holds back from full commitment to what the text says: it may, might or could be so, it seems or "
        "is likely, perhaps or to some extent, as far as the writer knows, thinks or can tell. A text counts where a "
        "quarter of its sentences or more hedge. Permissions and wishes ('you may leave', 'may you prosper'), ability "
        "in the past ('we could hear the sea'), the month of May, plain numbers, requests, and the doubts of others "
        "that are reported or quoted do not count; a bare approximation ('about 40 km') is too weak by itself."
    )

    def read(self, passage: Passage) -> Reading:
        """Score in [0, 1] with the hedging sentences as spans; abstains on no text and on other languages."""
        if not passage.text.strip() or not reads_as_english(passage.text):
            return Reading(None)
        sentences = own_sentences(passage.text)
        hedged = [one for one in sentences if hedges(one.words)]
        return Reading(share_score(len(hedged), len(sentences), ENOUGH), tuple(one.span("hedge") for one in hedged))


_FOLDED = re.compile(
    r"\b(?:Theresa|in|of|last|next|early|late|mid-?|\d{1,2}(?:st|nd|rd|th)?) May\b|\bMay \d{1,4}\b|"
    r"(?<=[a-z] )(?:Perhaps|Maybe|Probably|Possibly|Apparently)\b"  # a capital inside a sentence is a name's
)


def hedges(sentence: str) -> bool:
    """Whether one sentence, on one line and with plain quotes, hedges."""
    return BIAS + sum(present(CUES, _FOLDED.sub("", sentence)).values()) >= 0
