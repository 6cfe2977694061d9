"""Reading a result file, and which part of the page it becomes."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from moeprobe.errors import FindingsError
from moeprobe.fields import Fields, parse_json, read_text
from moeprobe.findings.checks import check_sizes
from moeprobe.report.results.cascade import cascade_part
from moeprobe.report.results.changed import behaviour_part, rescue_part
from moeprobe.report.results.coalition import coalition_part
from moeprobe.report.results.dose import dose_part
from moeprobe.report.results.part import Part
from moeprobe.report.results.screen import screen_part
from moeprobe.visible import cleaned

_PARTS: Mapping[str, Callable[[Fields], Part]] = {
    "moeprobe.behaviour/1": behaviour_part,
    "moeprobe.rescue/2": rescue_part,
    "moeprobe.dose/1": dose_part,
    "moeprobe.cascade/1": cascade_part,
    "moeprobe.coalition/1": coalition_part,
    "moeprobe.screen/1": screen_part,
}
SCHEMAS = tuple(_PARTS)


def load_result(path: str | Path) -> dict[str, Any]:
    """Read a result that `moeprobe interchange screen|coalition|dose|cascade|behaviour|rescue -o` wrote.

    Raises:
        FindingsError: no such file, no result that a page can show, or a field is missing or of the wrong kind.
    """
    document = parse_json(read_text(Path(path), FindingsError), str(path), FindingsError)
    part_of(document, str(path))
    return dict(document)


def part_of(document: object, where: str = "the result") -> Part:
    """The part of the page for one result; every text in it is made visible, since it may come from anybody.

    Raises:
        FindingsError: as `load_result`.
    """
    fields = Fields(document, where, FindingsError)
    schema = fields.text("schema")
    if schema not in _PARTS:
        raise FindingsError(
            f"{where}: schema {schema[:80]!r} is none that a report shows ({', '.join(SCHEMAS)}, or findings)."
        )
    check_sizes(fields.data, where)
    return _PARTS[schema](Fields(cleaned(document), where, FindingsError))
