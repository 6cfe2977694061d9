"""The demo on SmolLM2, a real language model: what the README's command promises."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from moeprobe.capture import Recorder
from moeprobe.demo import PLANS, run_demo
from moeprobe.demo.plan import demo_prompts
from moeprobe.engines import Decoding, record
from moeprobe.models import load_model, smollm2
from moeprobe.trace import load_trace
from tests.engines.routing import check_against_teacher_forcing

pytestmark = [
    pytest.mark.smollm2,
    pytest.mark.skipif(not smollm2.is_installed(), reason=f"SmolLM2 is not installed; run: {smollm2.INSTALL}"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("smollm2") / "demo"
    torch.set_num_threads(2)
    run_demo("smollm2", folder, say=lambda line: None)
    return folder


@pytest.fixture(scope="module")
def findings(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "findings.json").read_text()))


def rows_of(findings: dict[str, Any], probe: str) -> dict[str, Any]:
    return {row["site"]: row for row in findings["rows"] if row["probe"] == probe}


def test_the_planted_expert_leads_and_causes(findings: dict[str, Any]) -> None:
    rows = rows_of(findings, "refusal")
    planted = rows["L18.E5"]
    assert planted["q"] < 0.05
    assert planted["rate_difference"] == max(abs(row["rate_difference"]) for row in rows.values())
    assert planted["p"] == min(row["p"] for row in rows.values() if row["p"] is not None)
    assert planted["verdict"] == "necessary and sufficient"


def test_other_experts_go_with_refusal_and_do_nothing(findings: dict[str, Any], folder: Path) -> None:
    inert = [row for row in rows_of(findings, "refusal").values() if row["interchange"] and row["site"] != "L18.E5"]
    assert inert
    for row in inert:
        assert row["association"] == "associated"
        assert row["verdict"] == "association only"
        assert row["interchange"]["exactly_zero"]
    page = (folder / "report.html").read_text()
    assert inert[0]["site"] in page
    assert "association only" in page.lower()
    assert "changed nothing (exactly 0)" in page


def test_the_second_question_is_tested_and_its_answers_are_about_the_speaker(findings: dict[str, Any]) -> None:
    """The model examines itself now and then only; there must be enough of it that a null says something."""
    asked = next(one for one in findings["questions"] if one["name"] == "first-person-self-examination")
    assert asked["design"]["positive"]["units"] >= 10
    assert asked["design"]["negative"]["units"] >= 10
    assert asked["design"]["tested"] > 5
    assert asked["design"]["detectable"]["d"] < 1.5
    shown = asked["units"]["positive"]["names"]
    asked_about_itself = [name for name in shown if name.endswith("-self")]
    assert len(asked_about_itself) >= 0.9 * len(shown)  # the controls, with the same words, do not bring it about
    verdicts = {row["verdict"] for row in rows_of(findings, "first-person-self-examination").values()}
    assert verdicts <= {"associated", "tokens only", "not associated", "untestable"}  # nothing was swapped


def test_w_is_s_times_q_in_every_row(findings: dict[str, Any]) -> None:
    checked = 0
    for row in findings["rows"]:
        for side in "10":
            if row[f"Q{side}"] is None:
                assert row[f"S{side}"] == row[f"W{side}"] == 0
            else:
                assert abs(row[f"W{side}"] - row[f"S{side}"] * row[f"Q{side}"]) <= 1e-12
                checked += 1
        assert abs(row["entry"] + row["valuation"] - row["dW"]) <= 1e-12
    assert checked > 30


def test_the_trace_is_whole(folder: Path) -> None:
    trace = load_trace(folder / "run.trace")
    trace.verify()
    assert trace.manifest.generations == len(demo_prompts(PLANS["smollm2"]))
    assert [info.layer for info in trace.manifest.layers] == [18]
    for one in trace.generations[:10]:
        frame = trace.selection_frame([18])
        mine = frame[(frame["generation"] == one.index) & (frame["rank"] == 0)]
        assert "".join(mine[~mine["segment"].isin(["answer", "thinking"])]["token"]) == one.prompt_text


def test_recording_is_bitwise_silent_and_equals_teacher_forcing(tmp_path: Path) -> None:
    loaded = load_model("smollm2", dtype="float32")
    prompts = demo_prompts(PLANS["smollm2"])[:4]
    trace = record(loaded, prompts, tmp_path / "a.trace", decoding=Decoding(max_new_tokens=8))
    check_against_teacher_forcing(loaded, trace)
    ids = torch.tensor([loaded.tokenizer(prompts[0].prompt)["input_ids"]])
    with torch.inference_mode():
        plain = loaded.model(ids).logits
        with Recorder(loaded.model):
            assert torch.equal(loaded.model(ids).logits, plain)
