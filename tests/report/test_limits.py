"""What may not be concluded follows from what was run and what was not."""

import ast
import inspect
import math
import re
from typing import Any

import pytest
import report_samples as samples

from moeprobe.report import limits as limits_module
from moeprobe.report import reach as reach_module
from moeprobe.report.limits import limits


def _limits(findings: dict[str, Any], number: int = 0) -> dict[str, str]:
    question = findings["questions"][number]
    rows = [row for row in findings["rows"] if row["probe"] == question["name"]]
    runs = [run for run in findings["interchange"] if run["probe"] == question["name"]]
    return {one.heading: one.reason.replace("\u00a0", " ") for one in limits(findings, question, rows, runs)}


def test_without_interchange_nothing_is_a_cause() -> None:
    found = _limits(samples.untested())
    assert "Interchange was not run" in found["Whether any expert causes anything was not tested"]
    assert "The verdicts are about the metric; other measures of the behaviour were not tried" not in found


def test_with_interchange_the_metric_bounds_the_verdict() -> None:
    found = _limits(samples.toy())
    assert "Whether any expert causes anything was not tested" not in found
    assert (
        "mean negative log-likelihood (nats per token)"
        in found["The verdicts are about the metric; other measures of the behaviour were not tried"]
    )
    assert "What inert experts do together with others was not tested" in found
    assert found["Pairs that did not split were left out"].startswith("2 pairs were left out of interchange")


def test_untested_associations_are_counted() -> None:
    findings = samples.toy()
    spare = next(row for row in findings["rows"] if row["verdict"] == "not associated")
    spare.update(association="associated", verdict="associated")
    assert (
        "on 2 of 3 associated experts" in _limits(findings)["Whether the other experts cause anything was not tested"]
    )


def test_few_generations_print_what_they_can_resolve() -> None:
    reason = _limits(samples.large())["With so few generations, differences can have been missed"]
    assert math.isclose(2 / math.comb(20, 10), 1.0825e-5, rel_tol=1e-4)  # METHODS 3.6: 1.08e-5 for 10 + 10
    assert "1.1\u00b710\u207b\u2075" in reason
    assert "With so few generations, differences can have been missed" not in _limits(samples.smollm())


def test_probe_error_label_and_unmeasured_differ() -> None:
    said = _limits(samples.toy())["Which generations were sorted wrongly is not known"]
    assert "balanced accuracy 0.93 [0.85, 0.97]. On other text" in said
    assert "sorted wrongly" not in said  # 1 - balanced accuracy is the share of mistakes in classes of one size only
    assert "Whether the given labels are right was not checked" in _limits(samples.several(), 1)
    unmeasured = samples.toy()
    unmeasured["questions"][0]["quality"] = None
    assert "not measured" in _limits(unmeasured)["How often the probe errs was not measured"]


def test_left_out_length_model_and_many_questions() -> None:
    found = _limits(samples.several())
    assert (
        found["What the generations left out would show is not known"]
        == "3 generations were not used (the probe abstained: 3)."
    )
    assert "0.85 to 1 before matching and 1.01 to 1 after" in found["Whether length plays a part is not known"]
    assert "float32" in found["Other models and settings were not looked at"]
    assert "do_sample False" in found["Other models and settings were not looked at"]
    assert "3 questions" in found["False discoveries over all questions together were not controlled"]
    assert "False discoveries over all questions together were not controlled" not in _limits(samples.toy())


def test_samples_of_one_prompt_are_not_counted_as_more() -> None:
    findings = samples.large()
    design = findings["questions"][0]["design"]
    design["unit"] = "prompt"
    for side in ("positive", "negative"):
        design[side] |= {"generations": 60, "units": 10}
    reason = _limits(findings)["With so few prompts, differences can have been missed"]
    assert reason.startswith("There were 10 and 10 prompts.")
    assert "the number that counts is that of prompts" in reason
    assert "1.1\u00b710\u207b\u2075" in reason  # of 10 + 10 prompts, not of 60 + 60 generations


_NEGATION = re.compile(r"\b(?:not|no|none|nothing|never|cannot|without)\b", re.IGNORECASE)


def _headings() -> list[str]:
    """Every text in the source that can become the heading of a limit; a name in braces stands as X."""
    found = []
    for module in (limits_module, reach_module):
        for node in ast.walk(ast.parse(inspect.getsource(module))):
            named = isinstance(node, ast.Assign) and any(getattr(one, "id", "") == "heading" for one in node.targets)
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Limit":
                found += _texts(node.args[0])
            elif named:
                found += _texts(node.value)
    return found


def _texts(node: ast.expr) -> list[str]:
    if isinstance(node, ast.IfExp):
        return [*_texts(node.body), *_texts(node.orelse)]
    if isinstance(node, ast.JoinedStr):
        return ["".join(part.value if isinstance(part, ast.Constant) else "X" for part in node.values)]
    return [node.value] if isinstance(node, ast.Constant) else []


def _plain(heading: str) -> bool:
    """A sentence that says what is not known: it does not begin with the negation, and holds one at most."""
    return not _NEGATION.match(heading) and len(_NEGATION.findall(heading)) <= 1


def test_every_heading_is_a_plain_statement() -> None:
    headings = _headings()
    assert len(headings) >= 28
    assert [heading for heading in headings if not _plain(heading)] == []


@pytest.mark.parametrize("bad", ["Not that length plays no part", "Nothing about new prompts",
                                 "It is not shown that no other site does it"])  # fmt: skip
def test_the_check_of_headings_bites(bad: str) -> None:
    assert not _plain(bad)
