"""The demo on the compiled model: the report says what is true of it."""

import json
from pathlib import Path

import pytest

from moeprobe.demo import PLANS, run_demo
from moeprobe.demo.plan import demo_prompts
from moeprobe.errors import MoeprobeError, OutputError


def test_compiled_demo_tells_the_truth(tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    lines: list[str] = []
    run_demo("compiled", folder, say=lines.append)
    assert sorted(path.name for path in folder.iterdir()) == ["findings.json", "report.html", "run.trace"]
    rows = {row["site"]: row for row in json.loads((folder / "findings.json").read_text())["rows"]}
    assert rows["L2.E5"]["verdict"] == "necessary and sufficient"
    assert rows["L1.E1"]["verdict"] == "association only"
    assert rows["L1.E1"]["interchange"]["exactly_zero"]
    assert {rows[f"L0.E{expert}"]["association"] for expert in range(8)} <= {"not associated", "untestable"}
    for row in rows.values():
        for side in "10":
            if row[f"Q{side}"] is not None:
                assert abs(row[f"W{side}"] - row[f"S{side}"] * row[f"Q{side}"]) <= 1e-12
    assert len(lines) == 5
    with pytest.raises(OutputError, match="--force"):
        run_demo("compiled", folder)


def test_unknown_demo(tmp_path: Path) -> None:
    with pytest.raises(MoeprobeError, match="compiled, smollm2"):
        run_demo("gpt", tmp_path)


@pytest.mark.parametrize("name", sorted(PLANS))
def test_prompts_come_in_pairs(name: str) -> None:
    prompts = demo_prompts(PLANS[name])
    assert len({prompt.id for prompt in prompts}) == len(prompts)
    pairs: dict[str | None, set[object]] = {}
    for prompt in prompts:
        pairs.setdefault(prompt.pair, set()).add(prompt.label)
    assert None not in pairs
    assert all(len(labels) == 2 for labels in pairs.values())
