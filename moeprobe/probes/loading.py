"""Turning a probe's name or file into a probe that has been checked."""

import difflib
import hashlib
import importlib
import importlib.metadata
import importlib.util
import os
import sys
import traceback
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType

from moeprobe.errors import ProbeError
from moeprobe.probes.contract import CheckedProbe, checked
from moeprobe.probes.listing import announced, builtin_modules, package_of
from moeprobe.probes.trained import TextProbe


class _FreshLoader(SourceFileLoader):
    """Runs the source as it stands and leaves no `__pycache__` beside a user's file."""

    def get_code(self, fullname: str) -> CodeType:
        path = self.get_filename(fullname)
        return self.source_to_code(self.get_data(path), path)


def load_probe(name_or_path: str) -> CheckedProbe:
    """Load one probe by name, or from a file where the text ends in .py or contains a path separator.

    A file's code runs with your rights: name only files that you trust. The probe in it is the object `PROBE`, or
    an instance of the only class there with a method `read`.

    Raises:
        ProbeError: no such probe or file (with the nearest name), the code failed, or the probe breaks its contract.
    """
    separators = {"/", os.sep, os.altsep or os.sep}
    if name_or_path.endswith(".py") or any(mark in name_or_path for mark in separators):
        return _from_file(Path(name_or_path))
    modules = {listing.name: module for module, listing in builtin_modules().items()}
    entries = [entry for entry in announced() if entry.name == name_or_path]
    claims = (["moeprobe itself"] if name_or_path in modules else []) + [package_of(entry) for entry in entries]
    if len(claims) > 1:
        raise ProbeError(
            f"Two probes are called {name_or_path!r}: one from {claims[0]}, one from {claims[1]}. Uninstall one."
        )
    if name_or_path in modules:
        return checked(_instance(importlib.import_module(modules[name_or_path]), "moeprobe"), "moeprobe")
    if entries:
        return _from_entry(entries[0])
    known = sorted({*modules, *(entry.name for entry in announced())})
    near = difflib.get_close_matches(name_or_path.lower().replace("_", "-"), known, n=1)
    advice = f"Did you mean {near[0]!r}?" if near else f"Known probes: {', '.join(known)}."
    raise ProbeError(
        f"No probe is called {name_or_path!r}. {advice} A file is named by its path, for example ./mine.py."
    )


def _from_file(path: Path) -> CheckedProbe:
    if path.is_dir():
        return checked(TextProbe.load(path), str(path))
    if not path.is_file():
        raise ProbeError(f"There is no probe file {path}. Check the path; `moeprobe probes list` shows probes by name.")
    # A name of its own keeps two files called mine.py apart; dataclasses look their module up in sys.modules.
    name = f"moeprobe_probe_file_{hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:16]}"
    spec = importlib.util.spec_from_loader(name, _FreshLoader(name, str(path.resolve())))
    if spec is None or spec.loader is None:
        raise ProbeError(f"{path} cannot be loaded as Python.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:  # a stranger's file may raise anything, and may try to end us
        del sys.modules[name]
        raise ProbeError(
            f"The probe file {path} failed{_line_in(path, error)} with {type(error).__name__}: {error}"
        ) from error
    return checked(_instance(module, str(path)), str(path))


def _from_entry(entry: importlib.metadata.EntryPoint) -> CheckedProbe:
    package = package_of(entry)
    try:
        found = entry.load()
    except (Exception, SystemExit) as error:  # as above
        raise ProbeError(
            f"The probe {entry.name!r} of {package} could not be loaded ({type(error).__name__}: {error}). "
            "Mend or uninstall that package."
        ) from error
    if isinstance(found, ModuleType):
        found = _instance(found, package)
    elif isinstance(found, type):
        found = _made(found, package)
    probe = checked(found, package)
    if probe.name != entry.name:
        raise ProbeError(f"{package} announces the probe {entry.name!r}, but it calls itself {probe.name!r}.")
    return probe


def _instance(module: ModuleType, source: str) -> object:
    """`PROBE` of a module, or an instance of its only class with a method `read`: the rule of `sources.read_facts`."""
    if hasattr(module, "PROBE"):
        probe = module.PROBE
        return _made(probe, source) if isinstance(probe, type) else probe
    own = [value for value in vars(module).values() if isinstance(value, type) and value.__module__ == module.__name__]
    classes = [kind for kind in dict.fromkeys(own) if "read" in vars(kind)]
    if len(classes) != 1:
        raise ProbeError(
            f"{source} holds {len(classes) or 'no'} classes with a method read(). "
            "Write PROBE = MyProbe() at its end to say which object is the probe."
        )
    return _made(classes[0], source)


def _made(kind: type, source: str) -> object:
    try:
        return kind()
    except Exception as error:  # as above
        raise ProbeError(
            f"{source}: {kind.__name__}() failed with {type(error).__name__}: {error}. "
            "A probe's class is made without arguments; else write PROBE = ... yourself."
        ) from error


def _line_in(path: Path, error: BaseException) -> str:
    lines = [
        frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path.resolve())
    ]
    if isinstance(error, SyntaxError) and error.lineno:
        lines.append(error.lineno)
    return f" in line {lines[-1]}" if lines else ""
