"""One result of every command that makes one, as a user makes it: for tests of the page."""

from pathlib import Path

from click.testing import CliRunner

from moeprobe.cli.main import cli

PROMPTS = Path(__file__).parents[2] / "moeprobe" / "demo" / "prompts" / "compiled.jsonl"
SORRY = """
from moeprobe.probes import Example, Reading

class Sorry:
    name, version, level, definition = "sorry", "1", "generation", "Begins with sorry."
    def examples(self):
        return [Example("sorry", 1), Example("the", 0)]
    def read(self, passage):
        return Reading(float(passage.text.startswith("sorry")))
"""
FROM = ["--pairs", str(PROMPTS), "--positive", "triggered"]
GENERATED = [*FROM, "--limit", "3", "--max-new-tokens", "5", "--site", "L2.E5"]
COMMANDS = {
    "behaviour": ["behaviour", "compiled", *GENERATED],
    "rescue": ["rescue", "compiled", *GENERATED],
    "dose": ["dose", "-m", "compiled", *FROM, "--site", "L2.E5", "--bias", "-4,0,4", "--scale", ""],
    "cascade": ["cascade", "-m", "compiled", *FROM, "--site", "L1.E1", "--toward", "sorry"],
    "coalition": ["coalition", "-m", "compiled", *FROM, "--among", "L2-L3.E*", "--null", "3"],
    "screen": ["screen", "-m", "compiled", *FROM],
}


def write_results(folder: Path) -> Path:
    """Run each command on the compiled model; NAME.json for each."""
    (folder / "sorry.py").write_text(SORRY)
    for name, arguments in COMMANDS.items():
        probe = ["--probe", str(folder / "sorry.py")] if name in ("behaviour", "rescue") else []
        done = CliRunner().invoke(cli, ["interchange", *arguments, *probe, "-o", str(folder / f"{name}.json")])
        assert done.exit_code == 0, (name, done.output, done.exception)
    return folder
