"""moeprobe: which experts of a mixture-of-experts model go with a behaviour, and do they cause it?

Importing this package is cheap; each public name imports its room when it is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# Public name -> the room it lives in. Rooms share names with verbs (moeprobe.trace, moeprobe.correlate), so the verbs'
# functions are reached through their rooms: moeprobe.engines.record, moeprobe.correlate.correlate, ...
_HOMES = {
    "Findings": "moeprobe.findings",
    "MoeprobeError": "moeprobe.errors",
    "Report": "moeprobe.report",
    "Trace": "moeprobe.trace",
    "load_findings": "moeprobe.findings",
    "load_model": "moeprobe.models",
    "load_trace": "moeprobe.trace",
}
__all__ = ["Findings", "MoeprobeError", "Report", "Trace", "load_findings", "load_model", "load_trace"]

if TYPE_CHECKING:
    from moeprobe.errors import MoeprobeError
    from moeprobe.findings import Findings, load_findings
    from moeprobe.models import load_model
    from moeprobe.report import Report
    from moeprobe.trace import Trace, load_trace


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'moeprobe' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
