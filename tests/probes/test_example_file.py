"""probes/hedging.py, the file that docs/probes.md tells people to copy, works as it stands."""

from pathlib import Path

from moeprobe.probes import Passage, check_probe_quality, load_probe

HEDGING = Path(__file__).parents[2] / "probes" / "hedging.py"


def test_the_example_probe_is_sound() -> None:
    probe = load_probe(str(HEDGING))
    quality = check_probe_quality(probe)
    assert (quality.examples, quality.mistakes) == (20, ())
    text = "It might rain. Take a coat. The shop is shut."
    reading = probe.read(Passage(text))
    assert reading.score == 2 / 3
    assert [text[span.start : span.end] for span in reading.spans] == ["It might rain."]
    assert probe.read(Passage("")).score is None
