"""Figures for a paper, drawn by matplotlib (extra `figures`): map, leading experts, layers, interchange."""

from moeprobe.report.paper.drawing import save_figures

__all__ = ["save_figures"]
