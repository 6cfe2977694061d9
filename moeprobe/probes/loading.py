"""Turning a probe's name or file into a probe that has been checked."""

import difflib
import hashlib
import importlib
import importlib.metadata
import importlib.util
import os
import sys
import traceback
from collections.abc import Mapping
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType

from moeprobe.errors import ProbeError
from moeprobe.probes.composing import both, either, inside, inverse
from moeprobe.probes.contract import CheckedProbe, checked
from moeprobe.probes.expressions import Expression, Leaf, Placed, leaves_of, parse
from moeprobe.probes.functions import FunctionProbe
from moeprobe.probes.listing import announced, builtin_modules, list_probes, package_of
from moeprobe.probes.parameters import chosen, declared
from moeprobe.probes.sources import miscounted
from moeprobe.probes.trained import TextProbe


class _FreshLoader(SourceFileLoader):
    """Runs the source as it stands and leaves no `__pycache__` beside a user's file."""

    def get_code(self, fullname: str) -> CodeType:
        path = self.get_filename(fullname)
        return self.source_to_code(self.get_data(path), path)


def load_probe(spec: str, parameters: Mapping[str, object] | None = None) -> CheckedProbe:
    """Load a probe by name or from a file, or combine several: what every `--probe` option takes.

    `spec` is NAME or PATH.py (whatever ends in .py or holds a path separator is a path), then .OUTPUT or :OUTPUT for
    one of its further outputs, then (key=value, ...) for its parameters. Such probes may be joined by `and`, `or`,
    `not`, parentheses, and `within thinking`, `within answer` or `within PROBE`. The grammar stands in
    `moeprobe.probes.expressions`.

    A file's code runs with your rights: name only files that you trust. The probe in it is the object `PROBE`, or
    the only class there with a method `read`, or the only function with `@probe`.

    Args:
        spec: as above.
        parameters: set besides those of `spec`; for a single probe only.

    Raises:
        ProbeError: the spec cannot be read, no such probe, file, output or parameter (with the nearest name), the code
            failed, or the probe breaks its contract.
    """
    if _is_path(spec) and Path(spec).exists():  # a path with spaces or parentheses, as it stands on the disk
        return _leaf(Leaf(spec, {}), parameters or {})
    expression = parse(spec)
    if parameters and not isinstance(expression, Leaf):
        raise ProbeError(f"Parameters belong to one probe; write them into {spec!r}, behind the part they are for.")
    return _built(expression, parameters or {})


def is_known(spec: str) -> bool:
    """Whether `spec` is made of probes that can be called by name, so that it leads to the same probe anywhere.

    Nothing is loaded.

    Raises:
        ProbeError: an entry point is broken.
    """
    try:
        sources = leaves_of(parse(spec))
    except ProbeError:
        return False
    if any(_is_path(source) for source in sources):
        return False
    known = {listing.name for listing in list_probes()}
    return {source.partition(".")[0] for source in sources} <= known


def _built(expression: Expression, parameters: Mapping[str, object]) -> CheckedProbe:
    if isinstance(expression, Leaf):
        return _leaf(expression, parameters)
    if isinstance(expression, Placed):
        place = expression.place
        return inside(_built(expression.what, {}), place if isinstance(place, str) else _built(place, {}))
    parts = [_built(part, {}) for part in expression.parts]
    if expression.kind == "not":
        return inverse(parts[0])
    return both(*parts) if expression.kind == "and" else either(*parts)


def _leaf(leaf: Leaf, parameters: Mapping[str, object]) -> CheckedProbe:
    given = {**parameters, **leaf.parameters}
    if _is_path(leaf.source):
        path, _, output = leaf.source.partition(".py:")
        found = _from_file(Path(path + ".py" if output else leaf.source), given)
    else:
        name, _, output = leaf.source.partition(".")
        found = _by_name(name, given)
    return found.output(output) if output else found


def _is_path(source: str) -> bool:
    separators = {"/", os.sep, os.altsep or os.sep}
    return source.endswith(".py") or ".py:" in source or any(mark in source for mark in separators)


def _by_name(name: str, given: Mapping[str, object]) -> CheckedProbe:
    modules = {listing.name: module for module, listing in builtin_modules().items()}
    entries = [entry for entry in announced() if entry.name == name]
    claims = (["moeprobe itself"] if name in modules else []) + [package_of(entry) for entry in entries]
    if len(claims) > 1:
        raise ProbeError(f"Two probes are called {name!r}: one from {claims[0]}, one from {claims[1]}. Uninstall one.")
    if name in modules:
        return _probe_in(importlib.import_module(modules[name]), "moeprobe", given)
    if entries:
        return _from_entry(entries[0], given)
    known = sorted({*modules, *(entry.name for entry in announced())})
    near = difflib.get_close_matches(name.lower().replace("_", "-"), known, n=1)
    advice = f"Did you mean {near[0]!r}?" if near else f"Known probes: {', '.join(known)}."
    raise ProbeError(f"No probe is called {name!r}. {advice} A file is named by its path, for example ./mine.py.")


def _from_file(path: Path, given: Mapping[str, object]) -> CheckedProbe:
    if path.is_dir():
        if given:
            raise ProbeError(f"{path} is a trained probe; what it learned leaves no parameter to set.")
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
    return _probe_in(module, str(path), given)


def _from_entry(entry: importlib.metadata.EntryPoint, given: Mapping[str, object]) -> CheckedProbe:
    package = package_of(entry)
    try:
        found = entry.load()
    except (Exception, SystemExit) as error:  # as above
        raise ProbeError(
            f"The probe {entry.name!r} of {package} could not be loaded ({type(error).__name__}: {error}). "
            "Mend or uninstall that package."
        ) from error
    probe = _probe_in(found, package, given) if isinstance(found, ModuleType) else _made(found, package, given)
    if probe.name != entry.name:
        raise ProbeError(f"{package} announces the probe {entry.name!r}, but it calls itself {probe.name!r}.")
    return probe


def _probe_in(module: ModuleType, source: str, given: Mapping[str, object]) -> CheckedProbe:
    """`PROBE` of a module, its only class with a method `read`, or its only `@probe`: the rule of `read_facts`."""
    if hasattr(module, "PROBE"):
        return _made(module.PROBE, source, given)
    own = [value for value in vars(module).values() if getattr(value, "__module__", None) == module.__name__]
    unique = list({id(value): value for value in own}.values())
    classes = [value for value in unique if isinstance(value, type) and "read" in vars(value)]
    functions = [value for value in unique if isinstance(value, FunctionProbe)]
    if len(classes) + len(functions) != 1:
        raise ProbeError(miscounted(source, len(classes), len(functions)))
    return _made([*classes, *functions][0], source, given)


def _made(found: object, source: str, given: Mapping[str, object]) -> CheckedProbe:
    """A probe of a class, a decorated function, or an object that is one already, with the parameters given."""
    if isinstance(found, FunctionProbe):
        return checked(found.with_parameters(given), source)
    if not isinstance(found, type):
        if given:
            raise ProbeError(
                f"{source}: the probe is an object that was made there, so {next(iter(given))} cannot be set. "
                "End the file with PROBE = MyProbe, the class itself."
            )
        return checked(found, source)
    values = chosen(declared(found), given, f"Probe {getattr(found, 'name', found.__name__)}")
    try:
        made = found(**values)
    except Exception as error:  # as above
        raise ProbeError(
            f"{source}: {found.__name__}() failed with {type(error).__name__}: {error}. "
            "A probe's class is made without arguments, but for keyword-only ones with a default; "
            "else write PROBE = ... yourself."
        ) from error
    return checked(made, source, values)


def _line_in(path: Path, error: BaseException) -> str:
    lines = [
        frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path.resolve())
    ]
    if isinstance(error, SyntaxError) and error.lineno:
        lines.append(error.lineno)
    return f" in line {lines[-1]}" if lines else ""
