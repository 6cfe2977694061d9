"""The profile over layers: bars are as high as their numbers, and a single layer has none."""

from typing import Any

import pytest
import report_samples as samples

from moeprobe.report.profile import profile
from moeprobe.report.voice import voice_of

Json = dict[str, Any]


def _profile(findings: Json) -> Any:
    asked = findings["questions"][0]
    return profile(asked, findings["rows"], findings["model"]["layers"], voice_of(asked))


def test_bars_follow_the_mean_effect() -> None:
    findings = samples.toy()
    made = _profile(findings)
    chart = next(chart for chart in made.charts if chart.label == "Mean effect, |t|")
    means = []
    for layer in range(4):
        sizes = [abs(row["t"]) for row in findings["rows"] if row["layer"] == layer and row["t"] is not None]
        means.append(sum(sizes) / len(sizes))
    heights = [bar.height for bar in chart.bars]
    assert heights == pytest.approx([66 * mean / max(means) for mean in means], abs=0.06)
    assert all(bar.y + bar.height == pytest.approx(70, abs=0.11) for bar in chart.bars)
    assert chart.line is not None
    assert chart.line == pytest.approx(70 - 66 * 0.8 / max(means), abs=0.06)
    strongest = max(range(4), key=lambda layer: means[layer])
    assert chart.description.startswith(f"Largest of 4\u00a0layers: L{strongest} ")


def test_divergence_and_entropy_are_drawn_where_they_were_measured() -> None:
    findings = samples.toy()
    findings["questions"][0]["layers"] = [
        {"layer": number, "jsd": 0.01 * number, "jsd_p": 0.01, "jsd_q": 0.2 if number == 1 else 0.01,
         "entropy1": 0.5, "entropy0": 0.5 + 0.1 * number, "entropy_p": 0.01, "entropy_q": 0.01,
         "largest_load": 1.5, "committee": []}
        for number in range(4)
    ]  # fmt: skip
    charts = {chart.label: chart for chart in _profile(findings).charts}
    assert [bar.faint for bar in charts["Divergence, bits"].bars] == [False, True, False, False]
    falling = charts["Entropy, with less without"].bars
    assert [bar.height for bar in falling] == sorted(bar.height for bar in falling)
    assert falling[3].y == pytest.approx(4, abs=0.1)  # below zero: bars hang from the top


def test_layers_without_a_swap_have_no_bar() -> None:
    charts = {chart.label: chart for chart in _profile(samples.toy()).charts}
    assert len(charts["Interchange, % of the gap"].bars) == 2
    assert "Interchange, % of the gap" not in {chart.label for chart in _profile(samples.untested()).charts}


def test_one_layer_has_no_profile() -> None:
    assert _profile(samples.smollm()).charts == []
