"""The register `apology`: does the speaker apologise?"""

from moeprobe.probes.cues import Cue, cue
from moeprobe.probes.probe import Level, Passage, Reading
from moeprobe.probes.registers._beside import FromFiles
from moeprobe.probes.weighing import read_strongest

_WE = r"(?<!['\"])\b(?:i(?:'m| am)|we(?:'re| are))"
_VERY = r"(?: (?:\w{2,12}ly|so|very|really|just|still|also|indeed|ever so|most)){0,3}"
_FLAW = (
    r"(?:confusion|mistake|error|mix-?up|mess|oversight|delay|interruption|inconvenience|typos?|length|long|late|"
    r"misunderstanding|earlier|previous|wrong|slip|trouble|omission|slow|silence)"
)

# The illocutionary force indicating devices of the apology (Blum-Kulka, House & Kasper 1989; Olshtain & Cohen 1983):
# regret, request for forgiveness, acknowledgement of responsibility. Weights were set by hand on apology.jsonl.
BIAS = -4.0
CUES: tuple[Cue, ...] = (
    cue("is sorry", 7.0, rf"{_WE}{_VERY} sorry\b"),
    cue(
        "sorry alone",
        6.0,
        r"(?:^\W*|[,;:–—-] )(?:(?:oh|ah|oops|whoops|hmm|so|very|well|and|but|again|okay|ok|yes|no|really|unfortunately)"
        r"\W+){0,3}sorry\b(?! (?:state|sight|excuse|tale|story|lot|figure|mess\b)|['\"])(?! (?:seems?|"
        r"means?|isn't|may|might|won't)\b| (?:is|was) (?:the|an?|not)\b)",
    ),
    cue(
        "apologises",
        7.0,
        r"\b(?:i|we)(?:'d| would| do| must| should| want to| wish to| have to| can only| \w{2,12}ly)*(?: like to)?"
        r"(?: \w{2,12}ly)? apologi[sz]e\b(?! to (?:her|him|them)\b)",
    ),
    cue(
        "offers apologies",
        7.0,
        r"\b(?:my|our)(?: \w+){0,2} apolog(?:y|ies)\b|^\W*(?:\w+\W+){0,2}apologies\b(?! (?:are|in"
        r"(?! advance)|can|have|were|work))|"
        r"\b(?:i|we) owe you an? (?:\w+ )?apology\b|[,;] apologies\b",
    ),
    cue(
        "asks forgiveness",
        6.0,
        r"(?:^\W*|\bplease |\band )(?:please )?(?:forgive|excuse|pardon) (?:me(?! ?,)|us|my|our|the|any)\b"
        rf"(?=[^.!?]{{0,60}}(?:\b(?:my|our|for|i)\b|,|{_FLAW}))|\bi beg your (?:pardon|forgiveness)\b|"
        r"\byou (?:can|will|could|would|might) (?:ever )?(?:forgive|excuse) (?:me|us)\b|^\W*forgive me\b|"
        r"^\W*(?:pardon|excuse) me, (?:i|we) (?:meant|mis\w+|was|were|should|got)\b",
    ),
    cue(
        "takes the blame",
        6.0,
        r"^\W*(?:\w{1,8}\W+){0,3}my (?:mistake|bad|fault|error)\b(?! (?:was|is) not)|"
        r"\b(?:that|it|this) (?:was|is)(?: \w{2,12}ly| all)? (?:my|our) (?:own )?(?:mistake|bad|fault|error|"
        r"oversight)\b|"
        r"\b(?:i|we)(?:'ll| will)? (?:take|accept|bear)(?: the| all| full| complete)* (?:blame|responsibility)\b|"
        r"\b(?:that|it) was \w+ of me\b",
    ),
    cue(
        "regrets",
        6.0,
        r"\b(?:i|we)(?: do)?(?: \w{2,12}ly)? regret (?:that (?:i|we|my|our)|the|my|our|any|having|not)\b",
    ),
    cue(
        "should not have done it to you",
        5.0,
        r"\b(?:i|we) (?:shouldn't|should(?: not| never)|ought (?:not|never) to) have\b(?! (?:to|trusted|believed|"
        r"listened|helped|met)\b)[^.!?]{1,60}\byour?s?\b",
    ),
    cue("feels bad about it", 3.0, r"\bi feel (?:terrible|bad|awful|dreadful) (?:about|for|that)\b"),
    cue("names its flaw", 1.5, rf"\b{_FLAW}\b"),
    # What looks like it and is not.
    cue(
        "sympathy",
        -9.0,
        r"\bsorry,? (?:to (?:hear|learn|read|see|know|find out|(?:announce|report)(?! that (?:i|we)\b))|"
        r"for (?:your|the) (?:\w+ )?(?:loss|losses|pain|grief|"
        r"trouble you|family)|"
        r"(?:that |if |for what )?(?:you(?!r)|she|he|they|your|things|life|this is (?:happening|hard)|this has|"
        r"(?:this|that|it|such \w+|something like that) (?:happened|has happened|is happening|had to|keeps))|"
        r"about (?:your|his|her|their|the (?:death|loss))|for (?:him|her|them|the \w+ who))",
    ),
    cue(
        "pity",
        -9.0,
        r"\bfe(?:el|els|lt|eling) (?:\w{2,12}ly |so |very )?sorry for\b|\bsorry for (?:myself|himself|herself)\b",
    ),
    cue(
        "denied or waived",
        -9.0,
        r"(?:\b(?:not|never|no need|nothing)|n't)(?: \w+){0,3} (?:sorry|apologi[sz]e|apology|apologies|"
        r"my (?:mistake|fault|bad|error))\b",
    ),
    cue("of others", -3.0, r"\b(?:he|she|they|who|people|everyone)\b[^.!?]{0,30}\b(?:sorry|apologi[sz]e)"),
)


class Apology(FromFiles):
    """A sentence's log odds are BIAS plus its cues; the passage's score is that of its best sentence."""

    name = "apology"
    version = "2"
    level: Level = "sentence"
    held_out_read = "again"
    definition = (
        "The speaker apologises, in its own voice and in English, for something it did, failed to do or is about to "
        "do: it says that it is sorry, apologises, asks for forgiveness or takes the blame. The regret that opens a "
        "refusal counts (\"I'm sorry, but I can't help\"). Sorrow about what befell somebody does not (\"I'm sorry "
        'for your loss", "I\'m sorry you feel this way"), nor apologies that are reported, quoted, asked for in a '
        'letter or talked about, nor waiving one ("no need to apologise"), nor bad news alone ("unfortunately").'
    )

    def read(self, passage: Passage) -> Reading:
        """Score in [0, 1] with the apologising sentences as spans; abstains on no text and on other languages."""
        return read_strongest(passage.text, CUES, BIAS, "apology")
