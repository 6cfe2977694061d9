"""Which probes are there: read from source files, without importing or running any of them."""

import importlib.metadata
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.machinery import ModuleSpec
from pathlib import Path

from moeprobe.errors import ProbeError
from moeprobe.probes.sentences import split_sentences
from moeprobe.probes.sources import read_facts

GROUP = "moeprobe.probes"
"""The entry point group in which other packages announce their probes; the entry's name is the probe's name."""

REGISTERS = Path(__file__).parent / "registers"
"""The built-in probes: each module of this folder is one."""


@dataclass(frozen=True)
class ProbeListing:
    """One line of the list of probes.

    Attributes:
        name, version, level: as the source says.
        definition: its first sentence.
        source: "built-in", or the package that announces it.
        outputs: names of its further outputs.
        parameters: what can be set, with its defaults.
        held_out: lines of the file NAME.heldout.jsonl beside its source; None where there is no such file.
    """

    name: str
    version: str
    level: str
    definition: str
    source: str
    outputs: tuple[str, ...] = ()
    parameters: dict[str, int | float | str | bool] = field(default_factory=dict)
    held_out: int | None = None


def list_probes() -> list[ProbeListing]:
    """All probes that can be called by name: the built-in ones, then those of installed packages.

    Nothing is imported: a package that is never asked for is never run.

    Raises:
        ProbeError: an entry point is broken, or two sources claim one name; the message names the package.
    """
    listings = [*builtin_modules().values(), *(_announced(entry) for entry in announced())]
    seen: dict[str, str] = {}
    for listing in listings:
        if listing.name in seen:
            raise ProbeError(
                f"Two probes are called {listing.name!r}: one from {seen[listing.name]}, one from {listing.source}. "
                "Uninstall one of the packages."
            )
        seen[listing.name] = listing.source
    return listings


def builtin_modules() -> dict[str, ProbeListing]:
    """Module name -> listing of each built-in probe, sorted by probe name."""
    found = {}
    for path in REGISTERS.glob("[a-z]*.py"):
        found[f"moeprobe.probes.registers.{path.stem}"] = describe(path, "built-in")
    return dict(sorted(found.items(), key=lambda item: item[1].name))


def announced() -> list[importlib.metadata.EntryPoint]:
    """The entry points of the group, sorted by name."""
    return sorted(importlib.metadata.entry_points(group=GROUP), key=lambda entry: (entry.name, entry.value))


def package_of(entry: importlib.metadata.EntryPoint) -> str:
    """The package that announces an entry point, in words."""
    return f"package {entry.dist.name} {entry.dist.version}" if entry.dist else f"an unknown package ({entry.value})"


def describe(path: Path, origin: str, attribute: str = "") -> ProbeListing:
    """A listing from a source file, which is read and not run.

    Raises:
        ProbeError: as `read_facts`.
        OSError: the file cannot be read.
    """
    facts = read_facts(path.read_bytes(), str(path), attribute)
    sentences = split_sentences(" ".join(facts.definition.split()))
    first = sentences[0].text if sentences else ""
    beside = path.with_name(f"{path.stem}.heldout.jsonl")
    held_out = sum(bool(line.strip()) for line in beside.read_bytes().split(b"\n")) if beside.is_file() else None
    return ProbeListing(
        facts.name, facts.version, facts.level, first, origin, facts.outputs, facts.parameters, held_out
    )


def _announced(entry: importlib.metadata.EntryPoint) -> ProbeListing:
    package = package_of(entry)
    try:
        path = module_file(entry.module)
        listing = describe(path, package, entry.attr)
        if listing.name != entry.name:
            raise ProbeError(f"the entry point is called {entry.name!r} but the probe in {path} {listing.name!r}.")
    except (ProbeError, OSError, AttributeError) as error:  # AttributeError: the entry's value itself is malformed
        raise ProbeError(
            f"The probe {entry.name!r} of {package} is broken: {error} Mend or uninstall that package."
        ) from error
    return listing


def module_file(module: str) -> Path:
    """The source file of a module, found without importing it or its parents.

    `importlib.util.find_spec` would run the parents' `__init__`, so the import system's finders are asked one level
    after the other.

    Raises:
        ProbeError: there is no such module, or it has no Python source.
    """
    places: Sequence[str] | None = None
    spec: ModuleSpec | None = None
    parts = module.split(".")
    for depth in range(1, len(parts) + 1):
        spec = _find(".".join(parts[:depth]), places)
        if spec is None:
            raise ProbeError(f"the module {'.'.join(parts[:depth])} cannot be found.")
        places = spec.submodule_search_locations
        if depth < len(parts) and places is None:
            raise ProbeError(f"{'.'.join(parts[:depth])} is no package, so {module} cannot be found.")
    if spec is None or not spec.has_location or not spec.origin or not spec.origin.endswith(".py"):
        raise ProbeError(f"the module {module} has no Python source to read.")
    return Path(spec.origin)


def _find(name: str, places: Sequence[str] | None) -> ModuleSpec | None:
    for finder in sys.meta_path:
        spec = finder.find_spec(name, places)
        if spec is not None:
            return spec
    return None
