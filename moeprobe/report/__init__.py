"""The report: findings in, one offline HTML page out, or the same as Markdown, JSON or CSV. Needs no torch."""

from moeprobe.report.document import Report
from moeprobe.report.formats import as_csv, as_json, as_markdown
from moeprobe.report.render import render

__all__ = ["Report", "as_csv", "as_json", "as_markdown", "render"]
