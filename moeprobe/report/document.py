"""A report as an object: shown in a notebook, saved to a file."""

import html
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from moeprobe.errors import OutputError
from moeprobe.files import check_output, write_text
from moeprobe.findings import Findings, load_findings
from moeprobe.report.formats import as_csv, as_json, as_markdown
from moeprobe.report.render import render

Json = Mapping[str, Any]
HEIGHT = 720


class Report:
    """What findings (and further experiments) say, in any form.

    Args:
        findings: one or several, as objects or as files.
        results: further experiments, read by `moeprobe.report.results.load_result`.
        text: False leaves out all prompt and answer text.
        title: heading of the page.
    """

    def __init__(
        self,
        findings: Findings | str | Path | Sequence[Findings | str | Path],
        results: Sequence[Json] = (),
        *,
        text: bool = True,
        title: str | None = None,
    ) -> None:
        given = (findings,) if isinstance(findings, Findings | str | Path) else tuple(findings)
        self.findings = tuple(one if isinstance(one, Findings) else load_findings(one) for one in given)
        self.results, self.text, self.title = tuple(results), text, title

    @property
    def html(self) -> str:
        """The page, one offline document.

        Raises:
            FindingsError: as `render`.
        """
        return render(self._objects, self.results, text=self.text, title=self.title)

    @property
    def markdown(self) -> str:
        """The page as Markdown."""
        return as_markdown(self._objects, self.results, title=self.title)

    @property
    def json(self) -> str:
        """The page as JSON."""
        return as_json(self._objects, self.results, title=self.title)

    @property
    def csv(self) -> str:
        """All rows of the findings."""
        return as_csv(self.findings)

    def save(self, path: str | Path, *, force: bool = False) -> Path:
        """Write the page; the suffix says the form: .html, .md, .json or .csv.

        Raises:
            OutputError: the file exists and not `force`, or cannot be written; or it has another suffix.
        """
        forms = {".html": "html", ".md": "markdown", ".json": "json", ".csv": "csv"}
        target = Path(path)
        if target.suffix.lower() not in forms:
            raise OutputError(f"The suffix of {target.name!r} says no form; use {', '.join(forms)}.")
        check_output(target, force=force)
        write_text(target, getattr(self, forms[target.suffix.lower()]))
        return target

    @property
    def _objects(self) -> list[dict[str, Any]]:
        return [one.to_json() for one in self.findings]

    def __repr__(self) -> str:
        return f"<Report on {', '.join(map(repr, self.findings)) or f'{len(self.results)} results'}>"

    def _repr_html_(self) -> str:
        """The page in a frame of its own: its style and script meet nothing of the notebook's."""
        page = html.escape(self.html, quote=True)
        return (
            f'<iframe sandbox="allow-scripts" style="width:100%;height:{HEIGHT}px;border:1px solid #888" '
            f'title="moeprobe report" srcdoc="{page}"></iframe>'
        )
