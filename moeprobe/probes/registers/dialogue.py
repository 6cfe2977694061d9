"""The register "dialogue": turns of speech between parties, as a script or as quoted exchange."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from moeprobe.probes.cues import logistic
from moeprobe.probes.probe import Level, Passage, Reading, Span
from moeprobe.probes.registers._beside import FromFiles
from moeprobe.probes.voice import plain


@dataclass(frozen=True)
class Turn:
    """One turn of speech, `text[start:end]`; `speaker` is empty where it is not named."""

    start: int
    end: int
    speaker: str
    words: str


_LABELLED = re.compile(
    r"^[ \t>*_\-#]{0,8}(?:\[\d{1,2}:\d\d(?::\d\d)?\][ \t]*)?"
    r"(?:<(?P<nick>\w{1,20})>[ \t]*|[*_\[]{0,3}(?P<name>[^\W\d_][\w.'-]{0,20}(?: [\w.'-]{1,15}){0,2})[\]]?"
    r"(?: ?\((?P<manner>[^()\n]{1,40})\))?[*_\]]{0,3}[ \t]*:[*_]{0,3}[ \t]+)(?P<words>\S[^\n]{0,2000})",
    re.MULTILINE,
)
_CUE_LINE = re.compile(
    r"^(?P<name>[A-Z][A-Z.'-]{1,20}(?: [A-Z][A-Z.'-]{0,15}){0,2})(?: \([^()\n]{1,40}\))?[ \t]*\n"
    r"(?P<words>\S[^\n]{0,2000})",
    re.MULTILINE,
)
_DASHED = re.compile(r"^[ \t]{0,3}[-–—][ \t]{0,2}(?P<words>[^\s\-–—][^\n]{0,2000})$", re.MULTILINE)
_QUOTED = re.compile(
    r"\"(?P<double>[^\"\n]{1,1500})\"|(?<!\w)'(?P<single>(?:[^'\n]|'(?=\w)){1,1500})'(?!\w)|«\s?(?P<angled>[^»\n]{1,1500})»"
)
# Labels of people: nobody else has them before a colon.
_PEOPLE = frozenset(
    """q a user assistant human ai bot interviewer interviewee reporter host guest customer agent caller client doctor
    patient nurse teacher student tutor mother father mom mum dad me you he she him her them us cashier shopper waiter
    waitress judge lawyer witness officer moderator narrator child boy girl man woman wife husband boss employee
    husband system operator therapist coach player""".split()  # noqa: SIM905 - a list of words reads best as words
)
_HEADINGS = frozenset(
    """note notes example examples warning tip tips step title author year date subject from to cc name age city country
    occupation address phone email pros cons advantages disadvantages conclusion summary introduction result results
    method methods ingredients instructions directions serves input output explanation options option answer question
    temperature humidity wind breakfast lunch dinner snack monday tuesday wednesday thursday friday saturday sunday
    mon tue wed thu fri sat sun red green amber yellow blue key value type status id url source sources reference
    references hint problem solution given find proof theorem definition lemma idea goal goals task context background
    important caution remember first second third finally overall total price cost location time duration version
    language file path error exit chapter part section figure table page rating genre director producer cast team lead
    developer tester designer manager on jobs steps""".split()  # noqa: SIM905 - as above
)
_SPOKEN = re.compile(
    r"\?|!|\.\.\.|…|\b(?:i|you|we|me|my|your|us|let's|yes|no|yeah|nope|hi|hello|hey|oh|ah|okay|ok|please|thanks|thank|sorry|sure|well|"
    r"sir|madam|dear|honey)\b|'(?:m|re|ll|ve|d)\b",
    re.IGNORECASE,
)
_VERBS = (
    r"(?:said|says|asked|asks|replied|replies|answered|answers|whispered|shouted|growled|muttered|murmured|cried|"
    r"called|told|added|snapped|laughed|sighed|insisted|demanded|responded|countered|retorted|yelled|screamed|began|continued|"
    r"agreed|warned|explained|demanda|répondit|dit)"
)
_REPORT_AFTER = re.compile(
    rf"^[ \t,]{{0,3}}(?:(?P<who>[\w' ]{{1,30}}?) {_VERBS}|"
    rf"{_VERBS} (?P<whom>(?:(?:the|a|an|my|his|her|our|their|old|young) ){{0,2}}[\w']{{1,20}}))\b",
    re.IGNORECASE,
)
_REPORT_BEFORE = re.compile(
    rf"(?<![\"'\w])(?P<who>\w[\w']{{0,19}})(?: \w{{1,12}}ly)? {_VERBS}\b[^\"\n.?!]{{0,20}}[,:]?[ \t]*$", re.IGNORECASE
)
_REPLY = re.compile(r"\b(?:replied|answered|responded|retorted|countered|answers|replies|répondit)\b", re.IGNORECASE)
_SENTENCE = re.compile(r"\w+\W+\w+\W+\w.*[.!?…][\"')*_]{0,3}\s*$")
_ENDS = tuple(".,!?…—-")
BIAS = -4.0


class Dialogue(FromFiles):
    """Turns are found in four forms; the score is that of the form that shows most of an exchange."""

    name = "dialogue"
    version = "1"
    level: Level = "generation"
    held_out_read = "again"
    definition = (
        "Turns of speech between two or more parties stand in the text: as a script or transcript with the speakers' "
        "names, as lines with a dash, or as quoted exchange in a story, where one answers the other. Questions and "
        "answers with 'Q:' and 'A:' count. It does not count when only one party speaks, when speech is reported "
        "('she said that ...'), when words are quoted as words, in lists of quotations, recipes, forms and headings "
        "with colons, or in a letter. The label is the form: 'script' or 'quoted exchange'."
    )

    def read(self, passage: Passage) -> Reading:
        """Score in [0, 1] with the turns as spans; abstains on empty text."""
        if not passage.text.strip():
            return Reading(None)
        text = plain(passage.text)
        script, quoted = _script_turns(text), _quoted_turns(text)
        odds = {"script": _script_odds(script), "quoted exchange": _quoted_odds(text, quoted)}
        dashed = [Turn(*one.span("words"), "", one["words"]) for one in _DASHED.finditer(text)]
        if _dashed_odds(dashed) > odds["script"]:
            script, odds["script"] = dashed, _dashed_odds(dashed)
        label = max(odds, key=lambda form: odds[form])
        score = logistic(odds[label])
        if score < 0.5:
            return Reading(score, (), "no dialogue")
        turns = script if label == "script" else quoted
        return Reading(score, tuple(Span(one.start, one.end, score, "turn") for one in turns), label)


def _script_turns(text: str) -> list[Turn]:
    found = []
    for pattern in (_LABELLED, _CUE_LINE):
        for match in pattern.finditer(text):
            speaker = (match["name"] or match["nick"]).strip().lower()
            first = speaker.split()[0]
            capital = (match["name"] or "A")[0].isupper()
            heading = speaker in _HEADINGS or (pattern is _LABELLED and first in _HEADINGS)
            if speaker not in _PEOPLE and (heading or not capital):
                continue
            found.append(Turn(*match.span("words"), speaker, match["words"]))
    return sorted(found, key=lambda turn: turn.start)


def _script_odds(turns: Sequence[Turn]) -> float:
    """Two speakers at least. What tells most is that one speaks again after another, and that they speak as people."""
    speakers = [turn.speaker for turn in turns]
    if len(set(speakers)) < 2:
        return BIAS
    known = any(speaker in _PEOPLE or speaker.split()[0] in _PEOPLE for speaker in speakers)
    again = any(speaker in speakers[: place - 1] for place, speaker in enumerate(speakers) if place > 1)
    spoken = sum(bool(_SPOKEN.search(turn.words)) for turn in turns) / len(turns)
    whole = sum(bool(_SENTENCE.search(turn.words)) for turn in turns) / len(turns)
    return BIAS + 3.0 * again + 1.5 * known + 5.0 * spoken + 2.0 * whole


def _dashed_odds(turns: Sequence[Turn]) -> float:
    """Lines with a dash are a list unless they ask and answer."""
    if len(turns) < 2:
        return BIAS
    spoken = sum(bool(_SPOKEN.search(turn.words)) for turn in turns) / len(turns)
    asked = any(turn.words.rstrip().endswith("?") for turn in turns)
    return BIAS + 3.0 * spoken + 3.0 * asked


def _quoted_turns(text: str) -> list[Turn]:
    """Quotations that are speech: with an end of their own, or reported; pieces of one turn are one."""
    found: list[Turn] = []
    for match in _QUOTED.finditer(text):
        words = (match["double"] or match["single"] or match["angled"] or "").strip()
        after, before = text[match.end() : match.end() + 60], text[max(0, match.start() - 60) : match.start()]
        # a full stop closes the sentence, so that no "he said" can follow it
        told = None if words.endswith(".") else _REPORT_AFTER.search(after)
        told = told or _REPORT_BEFORE.search(before)
        if not words or not (words.endswith(_ENDS) or told):
            continue
        who = next((name for name in (told.groupdict().values() if told else ()) if name), "").strip().lower()
        last = found[-1] if found else None
        between = text[last.end : match.start()] if last else "\n"
        # "Leave," she said. "I won't stop you.": in one paragraph, words that nobody else is said to say are hers
        if last and last.speaker and who in ("", last.speaker) and between.strip() and "\n" not in between:
            found[-1] = Turn(last.start, match.end(), last.speaker, words)
        else:
            found.append(Turn(match.start(), match.end(), who, words))
    return found


def _quoted_odds(text: str, turns: Sequence[Turn]) -> float:
    """Each turn answers the one before it: by a new line, another speaker, a verb of reply, or a question before it."""
    best = BIAS
    for first, second in pairwise(turns):
        between = text[first.end : second.start]
        if len(between) > 200:
            continue
        odds = BIAS
        odds += 2.5 * ("\n" in between and "\n" not in between.strip())
        odds += 3.0 * bool(first.speaker and second.speaker and first.speaker != second.speaker)
        odds += 2.5 * bool(_REPLY.search(between) or _REPLY.search(text[second.end : second.end + 40]))
        odds += 2.0 * first.words.endswith("?")
        odds += 2.0 * (not between.strip())
        odds += 1.0 * bool(_SPOKEN.search(second.words)) + 1.0 * bool(_SPOKEN.search(first.words))
        odds -= 4.0 * bool(first.speaker and first.speaker == second.speaker)
        best = max(best, odds)
    return best
