"""Terms are linked once, where they first stand, and never inside other words."""

import re

import pytest
import report_samples as samples
from report_hostile import STRINGS, Outline

from moeprobe.report import render
from moeprobe.report.glossary import TERMS, Glossary


def test_only_the_first_use_is_a_link() -> None:
    glossary = Glossary()
    first = glossary.link("The router chooses experts; the router")
    assert str(first).count("<a ") == 2
    assert str(first).startswith('The <a class="term" href="#term-router">router</a>')
    assert str(glossary.link("Router and expert")) == "Router and expert"


def test_terms_are_whole_words_and_everything_else_is_escaped() -> None:
    glossary = Glossary()
    assert "<a" not in str(glossary.link("rerouter, expertise, site-specific, Q-learning"))
    assert str(glossary.link("a < b & token")) == 'a &lt; b &amp; <a class="term" href="#term-token">token</a>'


def test_a_single_letter_is_a_term_only_as_it_is_written() -> None:
    assert "term-q" in str(Glossary().link("where q is small"))
    assert "<a" not in str(Glossary().link("Question Q and T"))


def test_forms_and_ids_name_one_term_each() -> None:
    forms = [form.lower() for term in TERMS for form in {term.word.lower(), *(f.lower() for f in term.forms)}]
    assert sorted(forms) == sorted(set(forms))
    assert len({term.anchor for term in TERMS}) == len(TERMS)


def test_every_entry_stands_in_the_page_and_links_lead_to_entries() -> None:
    page = Outline(render([samples.smollm()]))
    links = [value[1:] for tag, key, value in page.values if tag == "a" and key == "href" and "#term-" in value]
    assert len(links) == len(set(links)), "a term is linked twice"
    assert {term.anchor for term in TERMS} >= set(links)
    # entropy and divergence are drawn where there are several layers; shams stand beside further experiments
    unlinked = {term.key for term in TERMS if term.anchor not in links}
    assert unlinked <= {"entropy", "divergence", "sham"}
    ids = {value for _, key, value in page.values if key == "id"}
    assert {term.anchor for term in TERMS} <= ids


def test_the_glossary_explains_with_words_it_has() -> None:
    """Every entry is a sentence of its own, and no entry is only a formula."""
    for term in TERMS:
        assert term.meaning.endswith("."), term.key
        assert len(re.findall(r"\w+", term.meaning)) >= 8, term.key


@pytest.mark.parametrize("text", STRINGS)
def test_a_hostile_text_is_escaped_between_the_links(text: str) -> None:
    said = f"The router {text} chose an expert"
    linked = Glossary().link(said)
    page = Outline(str(linked))
    assert {tag for tag, _ in page.tags} == {"a"}
    assert all(names == ("class", "href") for _, names in page.tags)
    assert {value for _, name, value in page.values if name == "class"} == {"term"}
    assert "".join(page.text) == said


@pytest.mark.parametrize("text", STRINGS)
def test_named_terms_hold_nothing_of_the_text(text: str) -> None:
    own = {term.word for term in TERMS}
    for link in Glossary().named_in(f"{text} entropy {text}"):
        assert "".join(Outline(str(link)).text) in own
