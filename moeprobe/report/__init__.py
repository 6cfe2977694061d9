"""The report: findings to one offline HTML page that anyone can read. Never imports torch."""

from moeprobe.report.render import render

__all__ = ["render"]
