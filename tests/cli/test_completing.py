"""Completion of probe names: all of them, quickly, everywhere a probe is asked for; paths stay files."""

import importlib.metadata
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.shell_completion import CompletionItem, ShellComplete

from moeprobe.cli import completing
from moeprobe.cli.completing import complete_probe, probe_names
from moeprobe.cli.main import cli
from moeprobe.probes import list_probes


def offered(*words: str) -> list[CompletionItem]:
    """What the shell is offered for the last word."""
    return ShellComplete(cli, {}, "moeprobe", "_MOEPROBE_COMPLETE").get_completions(list(words[:-1]), words[-1])


def values(*words: str) -> list[str]:
    return [item.value for item in offered(*words)]


def commands(group: click.Command, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    yield path, group
    if isinstance(group, click.Group):
        for name, command in group.commands.items():
            yield from commands(command, (*path, name))


def test_the_names_are_those_of_probes_list() -> None:
    assert probe_names() == sorted(one.name for one in list_probes())


@pytest.mark.parametrize(
    "words",
    [
        ("correlate", "run", "--probe"),
        ("compare", "a", "b", "--probe"),
        ("interchange", "test", "f.json", "--probe"),
        ("interchange", "behaviour", "model", "--probe"),
        ("labels", "sheet", "run", "--by"),
        ("probes", "show"),
        ("probes", "check"),
        ("probes", "agree"),
        ("probes", "agree", "hedging"),
    ],
)
def test_names_are_offered(words: tuple[str, ...]) -> None:
    assert values(*words, "sec") == ["second-person-address"]
    assert values(*words, "") == probe_names()


def test_every_option_that_takes_a_probe_completes_it() -> None:
    asked = [
        (path, parameter)
        for path, command in commands(cli)
        for parameter in command.params
        if parameter.name in ("probe", "probes")
        or (parameter.metavar or "").strip(".") in ("NAME|PATH", "EXPERT|PROBE")
    ]
    assert len(asked) >= 9
    assert [(path, one.name) for path, one in asked if one._custom_shell_complete is not complete_probe] == []


def test_outputs_are_offered_after_a_dot() -> None:
    assert values("probes", "show", "refusal.e") == ["refusal.epistemic-denial"]
    assert len(values("probes", "show", "refusal.")) == 4


@pytest.mark.parametrize(
    "word", ["./re", "~/re", "folder/refusal", "/folder/", ".", "nothing-like-it", "mine.py", "apology."]
)
def test_paths_and_unknown_words_are_left_to_the_shell(word: str) -> None:
    assert [(item.type, item.value) for item in offered("probes", "check", word)] == [("file", word)]


def test_an_announced_probe_is_offered_and_not_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = importlib.metadata.EntryPoint("gloating", "there_is_no_such_module:Gloating", "moeprobe.probes")
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: [entry] if group == completing._GROUP else [])
    assert values("probes", "show", "gl") == ["gloating"]
    assert [item.type for item in offered("probes", "show", "gloating.")] == ["file"]


def test_broken_metadata_offers_the_built_in_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(group: str) -> list[importlib.metadata.EntryPoint]:
        raise ValueError(group)

    monkeypatch.setattr(importlib.metadata, "entry_points", broken)
    assert values("probes", "show", "apo") == ["apology"]


def test_nothing_heavy_is_imported() -> None:
    code = (
        "import sys\nfrom moeprobe.cli.main import cli\nfrom click.shell_completion import ShellComplete\n"
        "got = ShellComplete(cli, {}, 'moeprobe', 'X').get_completions(['probes', 'show'], 'refusal.')\n"
        "assert len(got) == 4, got\n"
        "print(sorted({'numpy', 'torch', 'pandas', 'scipy', 'moeprobe.probes'} & sys.modules.keys()))"
    )
    root = Path(__file__).parents[2]
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root)
    assert found.stdout == "[]\n"
