"""What a probe's source file says of it, read without running a line of it."""

import ast
from dataclasses import dataclass

from moeprobe.errors import ProbeError

_FACTS = ("name", "version", "level", "definition")


@dataclass(frozen=True)
class Facts:
    """The four facts that stand as literals in a probe's source."""

    name: str
    version: str
    level: str
    definition: str


def read_facts(source: bytes, where: str, attribute: str = "") -> Facts:
    """Find the probe in a module's source and read its name, version, level and definition.

    The probe is `attribute` if given, else what `PROBE` is assigned, else the only class with a method `read`. The
    facts are string literals in the class body, or keyword arguments of the call: `PROBE = Template(name="...")`.

    Raises:
        ProbeError: the source does not parse, or the probe or one of the facts cannot be found in it.
    """
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise ProbeError(f"{where} is no Python source that can be read: {error}.") from error
    classes = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
    found = _class_facts(tree.body)  # module constants, so that `definition = DEFINITION` can be followed
    values = _probe_values(tree, classes, where, attribute, found)
    missing = [fact for fact in _FACTS if fact not in values]
    if missing:
        raise ProbeError(
            f"{where}: could not read {', '.join(missing)} of the probe. "
            "Write each as a string literal in the class body."
        )
    return Facts(*(values[fact] for fact in _FACTS))


def _probe_values(
    tree: ast.Module, classes: dict[str, ast.ClassDef], where: str, attribute: str, constants: dict[str, str]
) -> dict[str, str]:
    wanted = attribute or "PROBE"
    if wanted in classes:
        return _class_facts(classes[wanted].body, constants)
    assigned = [value for target, value in _assignments(tree.body) if target == wanted]
    if assigned:
        value = assigned[-1]
        if not isinstance(value, ast.Call):
            raise ProbeError(f"{where}: {wanted} must be assigned an instance, for example {wanted} = MyProbe().")
        maker = value.func.id if isinstance(value.func, ast.Name) else ""
        values = _class_facts(classes[maker].body, constants) if maker in classes else {}
        for keyword in value.keywords:
            text = _text(keyword.value, constants)
            if keyword.arg and text is not None:
                values[keyword.arg] = text
        return values
    if attribute:
        raise ProbeError(f"{where} does not define {attribute}. Point to the module whose source defines it.")
    candidates = [node for node in classes.values() if any(_is_read(item) for item in node.body)]
    if len(candidates) != 1:
        raise ProbeError(
            f"{where} holds {len(candidates) or 'no'} classes with a method read(). "
            "Write PROBE = MyProbe() at its end to say which object is the probe."
        )
    return _class_facts(candidates[0].body, constants)


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
