"""Which characters of an answer are thinking: from a trace's rows, for probes that look at one part."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from moeprobe.designs.groups import probe_groups
from moeprobe.designs.regrouping import regroup
from moeprobe.designs.segments import segments_of
from moeprobe.errors import StatsError
from moeprobe.probes import load_probe

SEGMENTS = ("prompt", "answer", "system", "user", "thinking", "assistant", "tool")
THINKS = "I can't help with that. Sure, here it is. It is easy."
SAYS = "Sure, here it is. I'm sorry, but I can't help with that."


def trace(*texts: tuple[str, list[tuple[str, int]]]) -> Any:
    """A trace of answers, each with (segment, first character) of its tokens; two prompt rows before each."""
    rows = [
        (number, SEGMENTS.index(name), start)
        for number, (_, tokens) in enumerate(texts)
        for name, start in [("user", 0), ("prompt", 9), *tokens]
    ]
    columns = np.array(rows).T
    half = len(rows) // 2  # a generation may lie across two shards
    shards = [
        SimpleNamespace(generation=part[0], segment=part[1], char_start=part[2], char_end=part[2] + 1)
        for part in (columns[:, :half], columns[:, half:])
    ]
    generations = [
        SimpleNamespace(prompt_id=str(number), prompt_text="p", text=text, label=None, metadata={}, pair=None)
        for number, (text, _) in enumerate(texts)
    ]
    return SimpleNamespace(
        manifest=SimpleNamespace(segments=SEGMENTS), generations=generations, shards=lambda: iter(shards)
    )


def test_segments_cover_the_text_without_gaps() -> None:
    made = trace(
        (THINKS, [("thinking", 0), ("thinking", 5), ("thinking", 12), ("answer", 24), ("answer", 30)]),
        (SAYS, [("answer", 0), ("answer", 8)]),
        ("?", []),
        ("ab", [("thinking", 0), ("answer", 0), ("answer", 1)]),
    )
    assert segments_of(made) == (
        (("thinking", 0, 24), ("answer", 24, len(THINKS))), (("answer", 0, len(SAYS)),), (), (("answer", 0, 2),),
    )  # fmt: skip


def test_a_probe_sees_the_part_that_it_asks_for() -> None:
    thinks = (THINKS, [("thinking", 0), ("thinking", 5), ("answer", 24), ("answer", 30)])
    made = trace(thinks, (SAYS, [("answer", 0)]), thinks)
    segments = segments_of(made)

    def members(spec: str) -> list[int]:
        return probe_groups(made.generations, load_probe(spec), segments=segments).member.tolist()

    assert members("refusal within answer") == [0, 1, 0]
    assert members("refusal within thinking") == [1, -1, 1]  # the second never thinks: it is left out
    assert members("refusal") == [1, 1, 1]


def test_without_segments_such_a_probe_is_refused() -> None:
    made = trace((SAYS, [("answer", 0)]))
    for spec in ("refusal within thinking", "not (refusal within answer)", "refusal or refusal within answer"):
        with pytest.raises(StatsError, match="reads thinking or answer apart"):
            probe_groups(made.generations, load_probe(spec))


def test_regroup_wants_the_same_parameters(tmp_path: Any) -> None:
    path = tmp_path / "n.py"
    path.write_text(
        "from moeprobe.probes import probe\n"
        "@probe(name='n', version='1', level='generation', definition='d', examples=[('a b', 1), ('b', 0)])\n"
        "def n(text, *, least=20):\n    return len(text) >= least\n"
    )
    made = trace((SAYS, [("answer", 0)]), ("short", [("answer", 0)]))
    asked = probe_groups(made.generations, load_probe(f"{path}(least=30)"), segments=segments_of(made))
    question = {
        "name": asked.name, "version": asked.version, "grouping": asked.grouping, "parameters": asked.parameters,
    }  # fmt: skip
    assert asked.parameters == {"least": 30}
    again = regroup(made.generations, question, load_probe(f"{path}(least=30)"))
    assert again.member.tolist() == asked.member.tolist() == [1, 0]
    with pytest.raises(StatsError, match=r"least was 30 and is 20.*n\(least=30\)"):
        regroup(made.generations, question, load_probe(str(path)))
    del question["parameters"]  # a file written before parameters were recorded
    with pytest.raises(StatsError, match="least was None and is 30"):
        regroup(made.generations, question, load_probe(f"{path}(least=30)"))
