"""Geometry of the interchange figures, against hand computation."""

import report_samples as samples

from moeprobe.report.plots import Axis, run_view
from moeprobe.report.voice import voice_of

VOICE = voice_of(samples.toy()["questions"][0])


def test_axis_positions() -> None:
    axis = Axis(-10.0, 110.0)
    assert axis.at(-10) == "2.00%"
    assert axis.at(110) == "98.00%"
    assert axis.at(50) == "50.00%"
    assert axis.at(900) == "98.00%"
    assert [label for _, label in axis.ticks()] == ["0\u00a0%", "25\u00a0%", "50\u00a0%", "75\u00a0%", "100\u00a0%"]


def test_pairs_are_drawn_on_the_scale_of_the_mean() -> None:
    findings = samples.toy()
    run = findings["interchange"][0]
    row = next(row for row in findings["rows"] if row["site"] == "L2.E5")
    row["interchange"]["necessity"]["per_pair"] = [run["gap"]["mean"], 0.0, 50 * run["gap"]["mean"]]
    view = run_view(run, [row], VOICE)
    first, second, third = view.sites[0].strips[0].pairs
    assert first.x == {label: at for at, label in view.ticks}["100\u00a0%"]
    assert second.x == view.zero
    assert not first.outside
    assert third.outside
    assert view.clipped


def test_a_gap_of_zero_draws_no_pairs() -> None:
    findings = samples.toy()
    run = findings["interchange"][0]
    run["gap"]["mean"] = 0.0
    row = next(row for row in findings["rows"] if row["site"] == "L2.E5")
    assert run_view(run, [row], VOICE).sites[0].strips[0].pairs == []


def test_only_the_first_dozen_is_drawn_and_all_are_listed() -> None:
    findings = samples.toy()
    row = next(row for row in findings["rows"] if row["site"] == "L2.E5")
    view = run_view(findings["interchange"][0], [row] * 15, VOICE)
    assert len(view.sites) == 15
    assert sum(bool(site.strips) for site in view.sites) == view.drawn == 12
