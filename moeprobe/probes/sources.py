"""What a probe's source file says of it, read without running a line of it."""

import ast
import math
from dataclasses import dataclass, field

from moeprobe.errors import ProbeError

_HOW = "See docs/probes.md, or let `moeprobe probes new NAME` write a file that works."
_FACTS = ("name", "version", "level", "definition")


@dataclass(frozen=True)
class Facts:
    """What stands as literals in a probe's source: the four facts, the outputs, and the parameters' defaults."""

    name: str
    version: str
    level: str
    definition: str
    outputs: tuple[str, ...] = ()
    parameters: dict[str, int | float | str | bool] = field(default_factory=dict)


def read_facts(source: bytes, where: str, attribute: str = "") -> Facts:
    """Find the probe in a module's source and read its name, version, level, definition, outputs and parameters.

    The probe is `attribute` if given, else what is called or assigned to `PROBE`, else the only class with a method
    `read` or function with the decorator `@probe(...)`. The facts are string literals in the class body, or keyword
    arguments of a call: `@probe(name="...")`, `PROBE = Template(name="...")`.

    Raises:
        ProbeError: the source does not parse, or the probe or one of the facts cannot be found in it.
    """
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise ProbeError(f"{where} is no Python source that can be read: {error}.") from error
    constants = _class_facts(tree.body)  # module constants, so that `definition = DEFINITION` can be followed
    found = _find(tree, where, attribute, constants)
    missing = [fact for fact in _FACTS if fact not in found.texts]
    if missing:
        raise ProbeError(
            f"{where}: could not read {', '.join(missing)} of the probe. "
            "Write each as a string literal in the class body, or in the call of @probe."
        )
    return Facts(**{fact: found.texts[fact] for fact in _FACTS}, outputs=found.outputs, parameters=found.parameters)


@dataclass
class _Found:
    """What one class, function or call says."""

    texts: dict[str, str] = field(default_factory=dict)
    outputs: tuple[str, ...] = ()
    parameters: dict[str, int | float | str | bool] = field(default_factory=dict)


def _find(tree: ast.Module, where: str, attribute: str, constants: dict[str, str]) -> _Found:
    classes = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
    defined = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
    functions = {node.name: (node, call) for node in defined if (call := _decorator(node)) is not None}
    wanted = attribute or "PROBE"
    assigned = [value for target, value in _assignments(tree.body) if target == wanted]
    if assigned and isinstance(assigned[-1], ast.Name):  # PROBE = Mine: the class itself, made when it is loaded
        wanted = assigned[-1].id
    if wanted in classes:
        return _of_class(classes[wanted], constants)
    if wanted in functions:
        return _of_function(*functions[wanted], constants)
    if assigned:
        value = assigned[-1]
        if not isinstance(value, ast.Call):
            raise ProbeError(f"{where}: {wanted} must be assigned an instance, for example {wanted} = MyProbe().")
        maker = value.func.id if isinstance(value.func, ast.Name) else ""
        found = _of_class(classes[maker], constants) if maker in classes else _Found()
        return _with_keywords(found, value, constants)
    if attribute:
        raise ProbeError(f"{where} does not define {attribute}. Point to the module whose source defines it.")
    candidates = [node for node in classes.values() if any(_is_read(item) for item in node.body)]
    if len(candidates) + len(functions) != 1:
        raise ProbeError(miscounted(where, len(candidates), len(functions)))
    if candidates:
        return _of_class(candidates[0], constants)
    return _of_function(*next(iter(functions.values())), constants)


def miscounted(where: str, classes: int, functions: int) -> str:
    """The message where a file does not hold exactly one probe."""
    also = f" and {functions or 'no'} function{'' if functions == 1 else 's'} with @probe(...)"
    return f"{where} holds {classes or 'no'} classes with a method read(){also}. " + (
        "Write PROBE = MyProbe at its end to say which one is the probe." if classes + functions else _HOW
    )


def _of_class(node: ast.ClassDef, constants: dict[str, str]) -> _Found:
    outputs: tuple[str, ...] = ()
    for target, value in _assignments(node.body):
        if target == "outputs":
            outputs = _names(value)
    makers = [item for item in node.body if isinstance(item, ast.FunctionDef) and item.name == "__init__"]
    parameters = _defaults(makers[0]) if makers else {}
    return _Found(_class_facts(node.body, constants), outputs, parameters)


def _of_function(node: ast.FunctionDef, call: ast.Call, constants: dict[str, str]) -> _Found:
    return _with_keywords(_Found(parameters=_defaults(node)), call, constants)


def _with_keywords(found: _Found, call: ast.Call, constants: dict[str, str]) -> _Found:
    for keyword in call.keywords:
        text = _text(keyword.value, constants)
        if keyword.arg == "outputs":
            found.outputs = _names(keyword.value)
        elif keyword.arg and text is not None:
            found.texts[keyword.arg] = text
        elif keyword.arg in found.parameters and isinstance(keyword.value, ast.Constant):
            found.parameters[keyword.arg] = keyword.value.value  # type: ignore[assignment]  # a literal in a call
    return found


def _decorator(node: ast.FunctionDef) -> ast.Call | None:
    """The call of `@probe(...)` above a function; also `@moeprobe.probes.probe(...)`."""
    for call in node.decorator_list:
        if isinstance(call, ast.Call) and (
            (isinstance(call.func, ast.Name) and call.func.id == "probe")
            or (isinstance(call.func, ast.Attribute) and call.func.attr == "probe")
        ):
            return call
    return None


def _names(value: ast.expr) -> tuple[str, ...]:
    items = value.elts if isinstance(value, ast.Tuple | ast.List) else []
    return tuple(item.value for item in items if isinstance(item, ast.Constant) and isinstance(item.value, str))


def _defaults(node: ast.FunctionDef) -> dict[str, int | float | str | bool]:
    """Keyword-only arguments with a literal default."""
    found: dict[str, int | float | str | bool] = {}
    for argument, default in zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True):
        try:
            value = None if default is None else ast.literal_eval(default)
        except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
            continue
        if isinstance(value, str | int) or (isinstance(value, float) and math.isfinite(value)):
            found[argument.arg] = value
    return found


def _is_read(node: ast.stmt) -> bool:
    return isinstance(node, ast.FunctionDef) and node.name == "read"


def _assignments(body: list[ast.stmt]) -> list[tuple[str, ast.expr]]:
    pairs: list[tuple[str, ast.expr]] = []
    for node in body:
        if isinstance(node, ast.Assign):
            pairs += [(target.id, node.value) for target in node.targets if isinstance(target, ast.Name)]
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value is not None:
            pairs.append((node.target.id, node.value))
    return pairs


def _class_facts(body: list[ast.stmt], constants: dict[str, str] | None = None) -> dict[str, str]:
    facts: dict[str, str] = {}
    for target, value in _assignments(body):
        text = _text(value, {**(constants or {}), **facts})
        if text is not None:
            facts[target] = text
    return facts


def _text(value: ast.expr, constants: dict[str, str]) -> str | None:
    if isinstance(value, ast.Constant) and isinstance(value.value, str):
        return value.value
    return constants.get(value.id) if isinstance(value, ast.Name) else None
