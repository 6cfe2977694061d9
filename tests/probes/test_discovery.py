"""Listing reads sources and runs none; loading runs only what was named; what is broken is named."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from moeprobe.errors import ProbeError
from moeprobe.probes import Passage, Reading, list_probes, load_probe

CLASS = """
from moeprobe.probes import Example, Reading

class Shouting:
    name = "shouting"
    version = "2"
    level = "generation"
    definition = "Text in capitals, e.g. this. HALF of it is enough."

    def examples(self):
        return [Example("NO", 1), Example("no", 0)]

    def read(self, passage):
        return Reading(float(passage.text.isupper()))
"""
TRAP = "raise SystemExit('a listing ran me')\n"


def package(folder: Path, entries: str, files: dict[str, str], name: str = "loudpack") -> None:
    """Lay an installed distribution down in `folder`."""
    for path, text in files.items():
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")
    info = folder / f"{name}-1.5.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.5\n", encoding="utf-8")
    (info / "entry_points.txt").write_text(f"[moeprobe.probes]\n{entries}\n", encoding="utf-8")


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder on sys.path; modules imported from it are forgotten afterwards."""
    before = set(sys.modules)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    for name in set(sys.modules) - before:
        if name.partition(".")[0] in ("loud", "other"):
            del sys.modules[name]


def test_lists_the_built_in_registers() -> None:
    listed = {listing.name: listing for listing in list_probes() if listing.source == "built-in"}
    assert {"refusal", "first-person-self-examination"} <= set(listed)
    assert listed["refusal"].level == "generation"
    assert listed["refusal"].definition.startswith("The assistant declines")
    assert listed["refusal"].definition.endswith("in English.")
    for name, listing in listed.items():
        probe = load_probe(name)
        assert (probe.name, probe.version, probe.level) == (name, listing.version, listing.level)
        assert probe.definition.startswith(listing.definition)


def test_lists_a_package_without_running_it(site: Path) -> None:
    package(
        site,
        "shouting = loud.deep.shout",
        {"loud/__init__.py": TRAP, "loud/deep/__init__.py": TRAP, "loud/deep/shout.py": CLASS + TRAP},
    )
    listing = next(listing for listing in list_probes() if listing.name == "shouting")
    assert (listing.version, listing.level, listing.source) == ("2", "generation", "package loudpack 1.5")
    assert listing.definition == "Text in capitals, e.g. this."
    assert not any(name.startswith("loud") for name in sys.modules)


@pytest.mark.parametrize("attribute", ["", ":Shouting", ":PROBE", ":ready"])
def test_loads_a_package_by_name(site: Path, attribute: str) -> None:
    package(
        site,
        f"shouting = loud.shout{attribute}",
        {"loud/__init__.py": "", "loud/shout.py": CLASS + "PROBE = Shouting()\nready = Shouting()\n"},
    )
    assert "shouting" in [listing.name for listing in list_probes()]
    assert load_probe("shouting").read(Passage("LOUD")) == Reading(1.0)


@pytest.mark.parametrize(
    ("entry", "files", "complaint"),
    [
        ("shouting = loud.missing", {"loud/__init__.py": ""}, "loud.missing cannot be found"),
        ("shouting = absent", {}, "absent cannot be found"),
        ("shouting = loud.shout.deeper", {"loud/__init__.py": "", "loud/shout.py": CLASS}, "no package"),
        ("shouting = loud:Other", {"loud/__init__.py": CLASS}, "does not define Other"),
        (
            "shouting = loud",
            {"loud/__init__.py": "class A:\n  def read(self): pass\n" * 2 + CLASS},
            "classes with a method",
        ),
        ("shouting = loud", {"loud/__init__.py": "x = 1"}, "holds no classes"),
        ("shouting = loud", {"loud/__init__.py": "def ("}, "no Python source"),
        (
            "shouting = loud",
            {"loud/__init__.py": CLASS.replace('name = "shouting"', "name = input()")},
            "could not read name",
        ),
        ("whispering = loud", {"loud/__init__.py": CLASS}, "'whispering' but the probe"),
        ("shouting = loud", {"loud/__init__.py": "PROBE = 7"}, "must be assigned an instance"),
        ("shouting = not a module", {}, "broken"),
    ],
)
def test_a_broken_entry_point_is_an_error_that_names_the_package(
    site: Path, entry: str, files: dict[str, str], complaint: str
) -> None:
    package(site, entry, files)
    with pytest.raises(ProbeError, match=r"package loudpack 1.5") as caught:
        list_probes()
    assert complaint in str(caught.value)
    with pytest.raises(ProbeError, match="loudpack"):
        load_probe(entry.partition(" ")[0]).read(Passage("x"))
    assert load_probe("refusal").name == "refusal"  # the broken one does not stand in the way of others


def test_two_claims_to_one_name_are_an_error(site: Path) -> None:
    package(site, "refusal = loud", {"loud/__init__.py": CLASS.replace("shouting", "refusal")})
    with pytest.raises(ProbeError, match=r"'refusal'.*built-in.*loudpack"):
        list_probes()
    with pytest.raises(ProbeError, match=r"'refusal'.*moeprobe itself.*loudpack"):
        load_probe("refusal")


def test_facts_may_stand_in_the_call(site: Path) -> None:
    text = CLASS + "LONG = 'Made from a template.'\nPROBE = Shouting(name='made', version='9', definition=LONG)\n"
    package(site, "made = loud", {"loud/__init__.py": text})
    listing = next(listing for listing in list_probes() if listing.name == "made")
    assert (listing.version, listing.level, listing.definition) == ("9", "generation", "Made from a template.")


@pytest.mark.parametrize(
    ("wrong", "right"),
    [("refusl", "refusal"), ("Refusal", "refusal"), ("first_person_self_examination", "first-person-self-examination")],
)
def test_suggests_the_nearest_name(wrong: str, right: str) -> None:
    with pytest.raises(ProbeError, match=f"Did you mean '{right}'"):
        load_probe(wrong)


def test_lists_the_known_names_when_nothing_is_near() -> None:
    with pytest.raises(ProbeError, match=r"Known probes: .*refusal"):
        load_probe("zzzz")


@pytest.mark.parametrize("ending", ["", "PROBE = Shouting()", "PROBE = Shouting"])
def test_loads_a_file_by_path(tmp_path: Path, ending: str) -> None:
    path = tmp_path / "mine.py"
    path.write_text(CLASS + ending, encoding="utf-8")
    probe = load_probe(str(path))
    assert probe.read(Passage("LOUD")).score == 1.0
    assert [item.name for item in tmp_path.iterdir()] == ["mine.py"]  # no __pycache__ is left behind


def test_a_changed_file_is_read_anew(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(CLASS, encoding="utf-8")
    assert load_probe(str(path)).version == "2"
    path.write_text(CLASS.replace('"2"', '"3"'), encoding="utf-8")
    assert load_probe(str(path)).version == "3"


def test_a_bare_word_is_never_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "shouting").write_text(CLASS, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ProbeError, match="No probe is called 'shouting'"):
        load_probe("shouting")


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("x = 1\nraise ValueError('no')\n", "failed in line 2 with ValueError: no"),
        ("raise SystemExit(3)\n", "failed in line 1 with SystemExit"),
        ("def (\n", "line 1 with SyntaxError"),
        ("import nowhere_to_be_found\n", "ModuleNotFoundError"),
        ("x = 1\n", "holds no classes"),
        (CLASS + CLASS.replace("Shouting", "Other"), "holds 2 classes"),
        (CLASS.replace("    version", "    edition"), "lacks version"),
        (CLASS.replace("def examples", "def __init__(self, seed): pass\n    def examples"), "made without arguments"),
        (CLASS.replace('"generation"', '"page"'), "level"),
    ],
)
def test_a_broken_file_is_an_error_that_names_it(tmp_path: Path, text: str, complaint: str) -> None:
    path = tmp_path / "mine.py"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ProbeError, match=r"mine.py") as caught:
        load_probe(str(path))
    assert complaint in str(caught.value)


def test_a_missing_file_is_named() -> None:
    with pytest.raises(ProbeError, match=r"no probe file nowhere/mine.py"):
        load_probe("nowhere/mine.py")
