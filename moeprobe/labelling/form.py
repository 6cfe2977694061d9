"""The sheet as one HTML page: offline, by keyboard, nothing leaves it but the file that the labeller saves."""

import base64
import hashlib
from importlib.resources import files

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from moeprobe.labelling.sheet import Key


def form_page(key: Key) -> str:
    """The page. All text is escaped; only this page's own style and script may act, and nothing may load."""
    environment = Environment(
        loader=PackageLoader("moeprobe.labelling", "page"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    style, script = _asset("form.css"), _asset("form.js")
    policy = (
        f"default-src 'none'; style-src '{_digest(style)}'; script-src '{_digest(script)}'; base-uri 'none'; "
        "form-action 'none'; require-trusted-types-for 'script'"
    )
    rows = key.rows()
    return environment.get_template("form.html.j2").render(
        policy=policy,
        style=Markup(style),  # noqa: S704 -- our own file, not data
        script=Markup(script),  # noqa: S704 -- our own file, not data
        question=rows[0]["question"],
        rows=rows,
    )


def _asset(name: str) -> str:
    return files("moeprobe.labelling").joinpath("page", name).read_text(encoding="utf-8").replace("\r\n", "\n")


def _digest(content: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
