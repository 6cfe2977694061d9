"""Every built-in register: enough examples, none twice, a definition with its limits, and true figures in the docs.

The figures of docs/gallery.md are computed anew here, so that the page cannot drift away from the rules.
"""

import re
from collections.abc import Sequence
from pathlib import Path

import pytest

from moeprobe.probes import Example, check_probe_quality, load_probe
from moeprobe.probes.listing import builtin_modules
from moeprobe.probes.trained import example_groups

GALLERY = Path(__file__).parents[2] / "docs" / "gallery.md"
NAMES = sorted(listing.name for listing in builtin_modules().values())


def plain(text: str) -> str:
    """The words of a text only: case, punctuation, accents of quotation and spaces do not make it another text."""
    return " ".join(re.sub(r"[^\w\s]", "", text.replace("_", " ")).casefold().split())


def repeated(examples: Sequence[Example]) -> list[str]:
    """Texts that stand there twice."""
    words = [plain(example.text) for example in examples]
    return sorted({text for text in words if text and words.count(text) > 1})


def counts(examples: Sequence[Example]) -> tuple[int, int]:
    """Positive and negative examples."""
    return sum(example.label for example in examples), sum(1 - example.label for example in examples)


def stated(page: str, name: str) -> list[str]:
    """The cells of a register's row in the gallery's first table."""
    row = re.search(rf"^\| \[{re.escape(name)}\]\(#{re.escape(name)}\) \|(.*)\|$", page, re.MULTILINE)
    assert row, f"docs/gallery.md has no row for {name}"
    return [cell.strip() for cell in row[1].split("|")]


def figure(name: str) -> str:
    """Balanced accuracy on the held-out examples, as the gallery writes it."""
    probe = load_probe(name)
    balanced = check_probe_quality(probe, probe.held_out()).balanced_accuracy
    return f"{balanced.value:.3f} [{balanced.low:.3f}, {balanced.high:.3f}]"


@pytest.mark.parametrize("name", NAMES)
def test_has_examples_enough_and_none_twice(name: str) -> None:
    probe = load_probe(name)
    own, held_out = probe.examples(), probe.held_out()
    assert min(counts(own)) >= 30
    assert min(counts(held_out)) >= 20
    assert repeated((*own, *held_out)) == []


@pytest.mark.parametrize("name", NAMES)
def test_no_held_out_example_is_nearly_one_of_the_own(name: str) -> None:
    probe = load_probe(name)
    own = [example.text for example in probe.examples()]
    groups = example_groups([Example(text, 0) for text in (*own, *(one.text for one in probe.held_out()))]).tolist()
    assert set(groups[: len(own)]) & set(groups[len(own) :]) == set()


@pytest.mark.parametrize("name", NAMES)
def test_outputs_have_answers_of_both_kinds(name: str) -> None:
    probe = load_probe(name)
    given = (*probe.examples(), *probe.held_out())
    assert {key for example in given for key in example.outputs} <= set(probe.outputs)
    for output in probe.outputs:
        answers = [example.outputs[output] for example in given if output in example.outputs]
        assert min(answers.count(0), answers.count(1)) >= 15


@pytest.mark.parametrize("name", NAMES)
def test_says_what_does_not_count(name: str) -> None:
    definition = load_probe(name).definition
    assert len(definition.split()) >= 30
    assert re.search(r"\b(?:not|nor|no)\b", definition, re.IGNORECASE)


@pytest.mark.parametrize("name", NAMES)
def test_the_gallery_states_what_is_measured(name: str) -> None:
    page = GALLERY.read_text(encoding="utf-8")
    probe = load_probe(name)
    cells = stated(page, name)
    own, held_out = counts(probe.examples()), counts(probe.held_out())
    assert cells[0] == f"{own[0]} + {own[1]}"
    assert cells[1] == f"{held_out[0]} + {held_out[1]}"
    assert cells[2] == probe.held_out_read
    assert cells[-1] == figure(name)
    assert f"\n## {name}\n" in page


def test_the_gallery_is_in_order_and_names_no_register_that_is_not_there() -> None:
    page = GALLERY.read_text(encoding="utf-8")
    rows = re.findall(r"^\| \[([a-z-]+)\]\(#", page, re.MULTILINE)
    sections = [title for title in re.findall(r"^## (.+)$", page, re.MULTILINE) if title in NAMES]
    assert rows == sections == NAMES


def test_a_text_in_other_dress_is_the_same_text() -> None:
    assert repeated([Example("I\u2019m sorry, but no!", 1), Example("Im  sorry but NO", 0), Example("Yes.", 0)]) == [
        "im sorry but no"
    ]


def test_a_wrong_figure_is_noticed() -> None:
    page = "| [apology](#apology) | 36 + 40 | 20 + 20 | 1.000 | .5 [.4, .6] |\n"
    assert stated(page, "apology")[-1] != figure("apology")
    with pytest.raises(AssertionError, match="no row"):
        stated(page, "refusal")
