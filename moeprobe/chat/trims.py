"""Where a generation should have ended, and why: stop sequences, end marks in plain letters, verbatim loops."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moeprobe.chat.marking import REFUSED, Render
from moeprobe.errors import CaptureError

# A loop counts from three full repetitions. It must also drop at least this many tokens: the rule of a table, a list of
# four short equal items, "ha ha ha" or a refrain are below it, a model that is stuck passes it soon.
LOOP_REPETITIONS = 3
LOOP_DROPPED = 32


@dataclass(frozen=True)
class Trim:
    """One reason to cut a generation.

    Attributes:
        cause: "stop-string", "spelled-end" or "loop".
        kept: generated tokens before the cut.
        dropped: generated tokens from the cut on.
        text: the matched text, for the first two causes.
        period, repetitions: of a loop, in tokens and in full repetitions (the kept one counts).
    """

    cause: str
    kept: int
    dropped: int
    text: str | None = None
    period: int | None = None
    repetitions: int | None = None

    def to_json(self) -> dict[str, Any]:
        """As `Generation.trims` keeps it."""
        return {name: value for name, value in vars(self).items() if value is not None}


def trim(
    ids: Sequence[int],
    text: str,
    char_start: NDArray[np.integer],
    char_end: NDArray[np.integer],
    *,
    stops: Sequence[str] = (),
    marks: Sequence[str] = (),
    mark_ids: Iterable[int] = (),
    loops: bool = True,
) -> tuple[int, tuple[Trim, ...]]:
    """How many generated tokens to keep, and every cause found, the earliest cut first.

    Args:
        ids: (tokens,) generated ids, without the end token.
        text: the decoded answer.
        char_start, char_end: (tokens,) characters of each token in `text`.
        stops: stop strings of the user.
        marks: `end_marks` of the model.
        mark_ids: ids of the model's special tokens: an end mark that is one of them was not spelled.
        loops: look for a verbatim loop at the end.

    Returns:
        Tokens to keep (all of them where there is no cause), and the causes.

    Raises:
        CaptureError: ids and offsets of different lengths, or an empty stop string.
    """
    tokens = np.asarray(ids, np.int64).reshape(-1)
    if not tokens.shape == char_start.shape == char_end.shape:
        raise CaptureError(
            f"Ids {tokens.shape} and their offsets {char_start.shape}, {char_end.shape} must have one length."
        )
    found = [
        stop_string(text, char_end, stops),
        spelled_end(tokens, text, char_start, char_end, marks, mark_ids),
        loop_onset(tokens) if loops else None,
    ]
    causes = sorted((cause for cause in found if cause is not None), key=lambda cause: cause.kept)
    return (causes[0].kept if causes else len(tokens)), tuple(causes)


def stop_string(text: str, char_end: NDArray[np.integer], stops: Sequence[str]) -> Trim | None:
    """The earliest stop string, the longest one where several begin together.

    The first token that holds a character of it is dropped, with what else that token holds: such a token was not
    chosen for the text before the stop alone.

    Raises:
        CaptureError: an empty stop string.
    """
    if any(not stop for stop in stops):
        raise CaptureError("A stop string is empty. Give --stop at least one character.")
    places = [(text.find(stop), -len(stop), stop) for stop in stops if stop in text]
    if not places:
        return None
    place, _, stop = min(places)
    kept = _first_token(char_end, place)
    return Trim("stop-string", kept, len(char_end) - kept, text=stop)


def spelled_end(
    ids: NDArray[np.int64],
    text: str,
    char_start: NDArray[np.integer],
    char_end: NDArray[np.integer],
    marks: Sequence[str],
    mark_ids: Iterable[int] = (),
) -> Trim | None:
    """The earliest end mark that the model wrote in ordinary tokens.

    A mark in quotes or backticks is mentioned, not used; "</s>" that closes an "<s>" is HTML.

    Args:
        ids, text, char_start, char_end: as for `trim`.
        marks: see `end_marks`.
        mark_ids: ids of special tokens; a match that holds one of them was not spelled, and is the model's business.
    """
    pattern = "|".join(re.escape(mark) for mark in sorted(filter(None, marks), key=len, reverse=True))
    special = np.isin(ids, sorted(set(mark_ids)))
    for match in re.finditer(pattern, text) if pattern else ():
        first = _first_token(char_end, match.start())
        after = int(np.searchsorted(char_start, match.end(), side="left"))
        if special[first:after].any() or _mentioned(text, match.start(), match.end()):
            continue
        return Trim("spelled-end", first, len(ids) - first, text=match[0])
    return None


def loop_onset(
    ids: NDArray[np.int64], *, repetitions: int = LOOP_REPETITIONS, dropped: int = LOOP_DROPPED
) -> Trim | None:
    """The verbatim loop that the generation ends in, cut after its first repetition.

    The loop is exact on ids and must last to the end: text that repeats and then goes on was no trap. Of the periods
    that fit, the one with the earliest cut is taken, which is the smallest of its multiples.

    Args:
        ids: (tokens,).
        repetitions: least number of full repetitions.
        dropped: least number of tokens after the first repetition.
    """
    length = len(ids)
    periods = _candidates(ids[::-1], dropped)
    if not len(periods):
        return None
    # The tail of length period + common[period] has that period (Z function of the reversed ids).
    common = _common_prefixes(ids[::-1])[periods]
    fits = (common >= dropped) & (periods + common >= repetitions * periods)
    if not fits.any():
        return None
    best = int(np.argmin(np.where(fits, length - common, length + 1)))
    period, kept = int(periods[best]), length - int(common[best])
    return Trim("loop", kept, length - kept, period=period, repetitions=1 + int(common[best]) // period)


def end_marks(ends: Iterable[str], special: Iterable[str], delimiter: str | None) -> tuple[str, ...]:
    """Texts that end a turn of this model: its end tokens, and what its template writes between two turns.

    Of the template's text count the special tokens, pieces that are bracketed or punctuated at both ends ("[INST]",
    "### User:"), and role headers that end in a colon, at the start of a line only.

    Args:
        ends: texts of the model's end tokens.
        special: texts of all special tokens.
        delimiter: from `turn_delimiter`.
    """
    marks = {end for end in ends if len(end.strip()) > 2}
    if delimiter:
        tokens = sorted(
            (token for token in set(special) if token.strip() and token in delimiter), key=len, reverse=True
        )
        marks |= {token for token in tokens if len(token) > 2}
        pieces = re.split("|".join(map(re.escape, tokens)), delimiter) if tokens else [delimiter]
        for piece in (line.strip() for part in pieces for line in part.split("\n")):
            if len(piece) > 3 and not piece[0].isalnum() and not piece[-1].isalnum():
                marks.add(piece)
            elif len(piece) > 3 and piece.endswith(":"):
                marks.add("\n" + piece)
    return tuple(sorted(marks))


def turn_delimiter(render: Render) -> str | None:
    """What the chat template writes between the end of an answer and the next user message; None if it cannot tell."""
    answer, question = "7126035418", "7126035429"
    chat = [("user", "Hello"), ("assistant", answer), ("user", question)]
    try:
        text = render([{"role": role, "content": content} for role, content in chat])
    except REFUSED:
        return None
    before, found, rest = text.partition(answer)
    between, second, _ = rest.partition(question)
    return between if before and found and second else None


def _first_token(char_end: NDArray[np.integer], char: int) -> int:
    return int(np.searchsorted(char_end, char, side="right"))


def _mentioned(text: str, start: int, end: int) -> bool:
    if text[max(start - 1, 0) : start] in ("`", "'", '"', "“", "‘") and text[end : end + 1] in (
        "`",
        "'",
        '"',
        "”",
        "’",
    ):
        return True
    tag = re.fullmatch(r"</(\w+)>", text[start:end])
    opened = text.rfind(f"<{tag[1]}>", 0, start) if tag else -1
    return opened > text.rfind(text[start:end], 0, start) if opened >= 0 else False


def _candidates(reverse: NDArray[np.int64], dropped: int) -> NDArray[np.int64]:
    """Periods for which the last `dropped` tokens stand once more, one period earlier."""
    periods = np.arange(1, max(len(reverse) - dropped, 0) + 1, dtype=np.int64)
    for place in range(dropped):
        if not len(periods):
            break
        periods = periods[reverse[periods + place] == reverse[place]]
    return periods


def _common_prefixes(sequence: NDArray[np.int64]) -> NDArray[np.int64]:
    """Z function: for each position, the length of the common prefix of the sequence and its part from there. Linear.

    A loop over tokens, run only for a generation whose end stands in it once more.
    """
    items = sequence.tolist()
    length, low, high = len(items), 0, 0
    common = [0] * length
    for place in range(1, length):
        size = min(high - place, common[place - low]) if place < high else 0
        while place + size < length and items[size] == items[place + size]:
            size += 1
        common[place] = size
        if place + size > high:
            low, high = place, place + size
    return np.asarray(common, np.int64)
