"""Results of interchange commands that are no findings, as parts of the page: read, checked, put into words."""

from moeprobe.report.results.part import Comparison, Part, Table
from moeprobe.report.results.reading import SCHEMAS, load_result, part_of

__all__ = ["SCHEMAS", "Comparison", "Part", "Table", "load_result", "part_of"]
