"""The blind labelling sheet, and the key that says what each of its windows is.

The sheet holds an opaque number, the question, the text with what stands around it, and room for a label. All else (the
expert, its weight, decile and partner, the prompt, the generation) is in the key, a file of its own.
"""

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from moeprobe import __version__
from moeprobe.designs.units import prompt_names
from moeprobe.designs.values import is_expert_name
from moeprobe.errors import LabelError
from moeprobe.fields import Fields
from moeprobe.labelling.drawing import Drawn, draw
from moeprobe.labelling.windows import Windows, expert_windows, probe_windows
from moeprobe.probes import Probe
from moeprobe.sites import parse_expert
from moeprobe.trace import Trace
from moeprobe.visible import visible

Json = dict[str, Any]

SCHEMA = "moeprobe.labelkey/1"
COLUMNS = ("id", "question", "before", "text", "after", "label")
"""All that a labeller sees of a window."""

DRAWN_BY = {
    "expert": "Windows whose middle token chose the expert, evenly over the deciles of its mean gate weight.",
    "probe": "Windows that the probe calls positive, evenly over the deciles of its score.",
}
MATCHED_BY = {
    "expert": "A negative is as long, and its middle token is the same but did not choose the expert; where there is "
    "none, one at a like place in its answer without the expert. Nothing else of prompt or answer is matched.",
    "probe": "A negative is as long, stands at a like place in its answer, and the probe calls it negative.",
}
_EXPERT_SOMEWHERE = re.compile(r"(?<![A-Za-z0-9])L\d+[._-]?E\d+(?![0-9])", re.IGNORECASE)


@dataclass(frozen=True)
class KeyWindow:
    """What one window is.

    Attributes:
        id: the opaque number on the sheet.
        generation, prompt_id, unit: where it stands; generations of one unit (prompt) are not independent.
        window: its characters [start, end) of the answer.
        text: these characters.
        shown: before, text and after as they stand on the sheet, with hidden characters as codes.
        positive: it was drawn for a hit; else it is a matched negative.
        value: mean gate weight of the expert in it, or the probe's score.
        decile: 1 to 10; 0 for a matched negative.
        pair: number that it shares with its partner.
        match: how the negative was matched; "" for one drawn for a hit.
    """

    id: str
    generation: int
    prompt_id: str
    unit: str
    window: tuple[int, int]
    text: str
    shown: tuple[str, str, str]
    positive: bool
    value: float
    decile: int
    pair: int
    match: str


@dataclass(frozen=True)
class Key:
    """All that the labeller must not know.

    Attributes:
        windows: in the order of the sheet.
        kind, name, version: what windows were drawn by: "expert" or "probe", its name, the probe's version.
        question: what the labeller is asked.
        run: path and digest of the trace.
        settings: `window` (tokens), `segment`, `seed`, `asked` (windows).
    """

    windows: tuple[KeyWindow, ...]
    kind: str
    name: str
    version: str | None
    question: str
    run: Json
    settings: Json

    @property
    def digest(self) -> str:
        """SHA-256 of what the sheet shows, in any order and file format."""
        shown = sorted([one.id, *one.shown] for one in self.windows)
        return "sha256:" + hashlib.sha256(json.dumps([self.question, shown]).encode()).hexdigest()

    def rows(self) -> list[dict[str, str]]:
        """The sheet: one row for each window, with the keys of `COLUMNS`."""
        return [
            dict(zip(COLUMNS, (one.id, visible(self.question), *one.shown, ""), strict=True)) for one in self.windows
        ]

    def to_json(self) -> Json:
        """The key file."""
        return {
            "schema": SCHEMA,
            "moeprobe": __version__,
            "sheet": self.digest,
            "run": self.run,
            "by": {"kind": self.kind, "name": self.name, "version": self.version},
            "question": self.question,
            "settings": self.settings,
            "drawn": DRAWN_BY[self.kind],
            "matched": MATCHED_BY[self.kind],
            "windows": [vars(one) for one in self.windows],
        }


def make_sheet(
    trace: Trace,
    by: str | Probe,
    *,
    number: int = 100,
    width: int = 40,
    question: str | None = None,
    segment: str = "answer",
    seed: int = 0,
) -> Key:
    """Draw windows for labelling; see `drawing.draw`.

    Args:
        trace: the run.
        by: an expert ("L18.E5"), or a probe.
        number: windows in all; fewer come out where the trace does not have them.
        width: tokens of a window.
        question: what the labeller is asked; for a probe by default whether its definition fits.
        segment: "answer" or "thinking".
        seed: of everything drawn.

    Raises:
        LabelError: no window can be drawn, there is no question, or it names an expert.
        ProbeError: the probe breaks its contract.
    """
    asked = _question(by, question)
    if isinstance(by, str):
        site = parse_expert(by)
        windows = expert_windows(trace, site, width, segment)
        kind, name = "expert", str(site)
        version: str | None = None
    else:
        windows = probe_windows(trace, by, width, segment)
        kind, name, version = "probe", by.name, by.version
    drawn = draw(windows, number, seed)
    rng = np.random.default_rng([seed, 1])  # its own stream: nothing of the order may follow from the draws
    order = rng.permutation(len(drawn)).tolist()
    settings = {"window": width, "segment": segment, "seed": seed, "asked": number}
    return Key(
        windows=_described(trace, windows, [drawn[index] for index in order], _ids(len(drawn), rng)),
        kind=kind,
        name=name,
        version=version,
        question=asked,
        run={"path": str(trace.path), "digest": trace.digest},
        settings=settings,
    )


def parse_key(data: Any, where: str) -> Key:
    """A key file, checked.

    Raises:
        LabelError: it is none, is damaged, or its digest is another.
    """
    fields = Fields(data, where, LabelError)
    if fields.data.get("schema") != SCHEMA:
        raise LabelError(f"{where} is no key of a labelling sheet ({SCHEMA}). `moeprobe labels sheet` writes one.")
    by = Fields(fields.section("by"), f"{where}, by", LabelError)
    if by.text("kind") not in DRAWN_BY:
        raise LabelError(f"{where}: windows are drawn by an expert or a probe, not by {by.text('kind')[:40]!r}.")
    key = Key(
        windows=tuple(
            _key_window(Fields(one, f"{where}, windows[{index}]", LabelError))
            for index, one in enumerate(fields.items("windows"))
        ),
        kind=by.text("kind"),
        name=by.text("name"),
        version=by.optional_text("version"),
        question=fields.text("question"),
        run=fields.section("run"),
        settings=fields.section("settings"),
    )
    if not key.windows or len({one.id for one in key.windows}) < len(key.windows):
        raise LabelError(f"{where}: no windows, or two of one id. The key was altered; use the one that was written.")
    if key.digest != fields.text("sheet"):
        raise LabelError(
            f"{where} was altered: its windows are not those of its sheet. Use the file as it was written."
        )
    return key


def check_neutral(text: str, what: str) -> None:
    """Refuse a text that would tell the labeller what the windows were drawn by.

    Raises:
        LabelError: it names an expert.
    """
    if is_expert_name(text) or _EXPERT_SOMEWHERE.search(text):
        raise LabelError(
            f"{what} names an expert, which the labeller must not know: {text[:80]!r}. Choose other words."
        )


def _question(by: str | Probe, question: str | None) -> str:
    if question is None and isinstance(by, str):
        raise LabelError('What is the labeller asked? Say it with --question, for example "Does the text refuse?".')
    asked = question if question is not None else f"Does the text fit this? {getattr(by, 'definition', '')}"
    if not asked.strip():
        raise LabelError("The question is empty. Write one that can be answered by yes or no.")
    check_neutral(asked, "The question")
    return asked.strip()


def _ids(number: int, rng: np.random.Generator) -> list[str]:
    """Opaque ids: random, and none twice. They begin with a letter, so that no spreadsheet reads a number."""
    found: dict[str, None] = {}
    while len(found) < number:
        found.setdefault(f"w{int(rng.integers(16**7)):07x}")
    return list(found)


def _described(trace: Trace, windows: Windows, drawn: Sequence[Drawn], ids: Sequence[str]) -> tuple[KeyWindow, ...]:
    units = prompt_names(trace.generations)
    made = []
    for one, name in zip(drawn, ids, strict=True):
        at = one.index
        generation = trace.generations[int(windows.generation[at])]
        start, end = int(windows.start[at]), int(windows.end[at])
        before, after = int(windows.before[at]), int(windows.after[at])
        text = generation.text
        made.append(
            KeyWindow(
                id=name,
                generation=generation.index,
                prompt_id=generation.prompt_id,
                unit=units[generation.index],
                window=(start, end),
                text=text[start:end],
                shown=(visible(text[before:start]), visible(text[start:end]), visible(text[end:after])),
                positive=one.decile > 0,
                value=float(windows.value[at]),
                decile=one.decile,
                pair=one.pair,
                match=one.match,
            )
        )
    return tuple(made)


def _key_window(fields: Fields) -> KeyWindow:
    ends, shown = fields.items("window"), fields.items("shown")
    if len(ends) != 2 or not all(type(end) is int for end in ends) or not 0 <= ends[0] < ends[1]:
        raise LabelError(f"{fields.where}: 'window' must be [start, end].")
    if len(shown) != 3 or not all(isinstance(text, str) for text in shown):
        raise LabelError(f"{fields.where}: 'shown' must be three texts.")
    return KeyWindow(
        id=fields.text("id"),
        generation=fields.integer("generation"),
        prompt_id=fields.text("prompt_id"),
        unit=fields.text("unit"),
        window=(ends[0], ends[1]),
        text=fields.text("text"),
        shown=(shown[0], shown[1], shown[2]),
        positive=fields.flag("positive"),
        value=fields.number("value"),
        decile=fields.integer("decile", 0, 10),
        pair=fields.integer("pair"),
        match=fields.text("match"),
    )
