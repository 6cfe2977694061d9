"""What may not be concluded follows from what was run and what was not."""

import math
from typing import Any

import report_samples as samples

from moeprobe.report.limits import limits


def _limits(findings: dict[str, Any], number: int = 0) -> dict[str, str]:
    question = findings["questions"][number]
    rows = [row for row in findings["rows"] if row["probe"] == question["name"]]
    runs = [run for run in findings["interchange"] if run["probe"] == question["name"]]
    return {one.heading: one.reason.replace("\u00a0", " ") for one in limits(findings, question, rows, runs)}


def test_without_interchange_nothing_is_a_cause() -> None:
    found = _limits(samples.untested())
    assert "Interchange was not run" in found["Not that any expert causes anything"]
    assert "Not more than the metric measures" not in found


def test_with_interchange_the_metric_bounds_the_verdict() -> None:
    found = _limits(samples.toy())
    assert "Not that any expert causes anything" not in found
    assert "mean negative log-likelihood (nats per token)" in found["Not more than the metric measures"]
    assert "Not that an inert expert does nothing" in found
    assert found["Nothing about prompts that did not split"].startswith("2 pairs were left out of interchange")


def test_untested_associations_are_counted() -> None:
    findings = samples.toy()
    spare = next(row for row in findings["rows"] if row["verdict"] == "not associated")
    spare.update(association="associated", verdict="associated")
    assert "on 2 of 3 associated experts" in _limits(findings)["Not that the untested experts cause anything"]


def test_few_generations_print_what_they_can_resolve() -> None:
    reason = _limits(samples.large())["Not much: these are few generations"]
    assert math.isclose(2 / math.comb(20, 10), 1.0825e-5, rel_tol=1e-4)  # METHODS 3.6: 1.08e-5 for 10 + 10
    assert "1.1\u00b710\u207b\u2075" in reason
    assert "Not much: these are few generations" not in _limits(samples.smollm())


def test_probe_error_label_and_unmeasured_differ() -> None:
    said = _limits(samples.toy())["Not that every generation was sorted rightly"]
    assert "balanced accuracy 0.93 [0.85, 0.97]. On other text" in said
    assert "sorted wrongly" not in said  # 1 - balanced accuracy is the share of mistakes in classes of one size only
    assert "Not that the labels are right" in _limits(samples.several(), 1)
    unmeasured = samples.toy()
    unmeasured["questions"][0]["quality"] = None
    assert "not measured" in _limits(unmeasured)["Not that the probe is right"]


def test_left_out_length_model_and_many_questions() -> None:
    found = _limits(samples.several())
    assert found["Nothing about the generations left out"] == "3 generations were not used (the probe abstained: 3)."
    assert "0.85 to 1 before matching and 1.01 to 1 after" in found["Not that length plays no part"]
    assert "float32" in found["Nothing about other models or settings"]
    assert "do_sample False" in found["Nothing about other models or settings"]
    assert "3 questions" in found["Not that all questions together are controlled"]
    assert "Not that all questions together are controlled" not in _limits(samples.toy())


def test_samples_of_one_prompt_are_not_counted_as_more() -> None:
    findings = samples.large()
    design = findings["questions"][0]["design"]
    design["unit"] = "prompt"
    for side in ("positive", "negative"):
        design[side] |= {"generations": 60, "units": 10}
    reason = _limits(findings)["Not much: these are few prompts"]
    assert reason.startswith("There were 10 and 10 prompts.")
    assert "the number that counts is that of prompts" in reason
    assert "1.1\u00b710\u207b\u2075" in reason  # of 10 + 10 prompts, not of 60 + 60 generations
