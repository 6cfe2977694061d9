"""What all commands share: streams, exit status, colours, environment variables, completion, documents."""

import json
import os
import subprocess
import sys
from pathlib import Path

import click
import pytest

from moeprobe.cli.main import cli
from tests.cli.conftest import Run

ROOT = Path(__file__).parents[2]


def leaves(command: click.Command, path: tuple[str, ...] = ()) -> list[tuple[tuple[str, ...], click.Command]]:
    if not isinstance(command, click.Group):
        return [(path, command)]
    context = click.Context(command)
    children = [(name, command.get_command(context, name)) for name in command.list_commands(context)]
    return [leaf for name, child in children if child is not None for leaf in leaves(child, (*path, name))]


def test_the_documents_are_up_to_date() -> None:
    done = subprocess.run([sys.executable, "docs/make.py", "--check"], cwd=ROOT, capture_output=True, text=True)
    assert (done.stdout, done.returncode) == ("", 0)


def test_every_command_is_documented() -> None:
    page = (ROOT / "docs" / "commands.md").read_text(encoding="utf-8")
    for path, _ in leaves(cli):
        assert f"## moeprobe {' '.join(path)}\n" in page


@pytest.mark.parametrize(
    ("path", "command"), leaves(cli), ids=lambda value: "-".join(value) if isinstance(value, tuple) else ""
)
def test_every_command_says_what_it_is_and_every_option_what_it_does(
    path: tuple[str, ...], command: click.Command
) -> None:
    assert command.help, path
    for one in command.params:
        if isinstance(one, click.Option):
            assert one.help, (path, one.name)


def test_an_environment_variable_stands_in_for_an_option_and_is_recorded(
    run: Run, own_findings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = tmp_path / "page.html"
    monkeypatch.setenv("MOEPROBE_REPORT_TITLE", "From the environment")
    code, _, err = run("report", own_findings, "-o", page)
    assert (code, err) == (0, "")
    assert "From the environment" in page.read_text(encoding="utf-8")
    code, _, _ = run("report", own_findings, "-o", page, "--title", "From the line", "--force")
    assert code == 0
    assert "From the environment" not in page.read_text(encoding="utf-8")


def test_a_variable_that_was_used_stands_in_the_recorded_command(
    run: Run, compiled_trace: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, out = compiled_trace.path, tmp_path / "f.json"  # type: ignore[attr-defined]
    monkeypatch.setenv("MOEPROBE_CORRELATE_ALPHA", "0.01")
    monkeypatch.setenv("MOEPROBE_REPORT_TITLE", "not of this command")
    code, _, err = run("correlate", path, "--by", "label", "--positive", "triggered", "-o", out)
    assert (code, err) == (0, "")
    body = json.loads(out.read_text())
    assert body["commands"][0].startswith("MOEPROBE_CORRELATE_ALPHA=0.01 moeprobe correlate ")
    assert body["questions"][0]["design"]["alpha"] == 0.01


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts_and_names(shell: str) -> None:
    environment = {**os.environ, "_MOEPROBE_COMPLETE": f"{shell}_source", "PYTHONPATH": str(ROOT)}
    code = "from moeprobe.cli.main import main; main()"
    script = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert "_MOEPROBE_COMPLETE" in script.stdout
    environment |= {"_MOEPROBE_COMPLETE": f"{shell}_complete", "COMP_WORDS": "moeprobe inter", "COMP_CWORD": "inter"}
    if shell != "fish":
        environment["COMP_CWORD"] = "1"
    found = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert "interchange" in found.stdout


def test_no_colour_where_nobody_wants_it(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """With a terminal that takes colours, NO_COLOR alone takes them out."""

    @cli.command("painted", hidden=True)
    def painted() -> None:
        click.secho("red", fg="red")

    monkeypatch.setattr(sys, "argv", ["moeprobe", "painted"])
    monkeypatch.setattr(click._compat, "_is_jupyter_kernel_output", lambda stream: True)  # a stream that takes colours
    from moeprobe.cli.main import main

    try:
        seen = []
        for value in ("", "1"):
            monkeypatch.setenv("NO_COLOR", value)
            with pytest.raises(SystemExit):
                main()
            seen.append(capsys.readouterr().out)
    finally:
        cli.commands.pop("painted")
    assert seen == ["\x1b[31mred\x1b[0m\n", "red\n"]


def test_a_variable_is_called_as_its_option_is_written(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOEPROBE_PROBES_CHECK_MIN_BALANCED_ACCURACY", "1")
    code, _, err = run("probes", "check", "refusal")
    assert (code, "Ignored" in err) == (1, False)
    monkeypatch.setenv("MOEPROBE_PROBES_CHECK_MIN_BALANCED_ACURACY", "1")
    _, _, err = run("probes", "list")
    assert "Ignored, since no option is called so: MOEPROBE_PROBES_CHECK_MIN_BALANCED_ACURACY." in err


def test_variables_of_options_are_told_apart() -> None:
    named = [one.envvar for _, command in leaves(cli) for one in command.params if isinstance(one, click.Option)]
    assert None not in named
    assert len(set(named)) == len(named)
