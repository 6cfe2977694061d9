"""A hundred hostile strings, a way to put them into every text field, and the outline of a page's tags."""

import base64
import json
import re
import zlib
from html.parser import HTMLParser
from typing import Any

CANARY = "document.documentElement.dataset.canary='hit'"

_SCRIPTS = [
    f"<script>{CANARY}</script>",
    f"</script><script>{CANARY}</script>",
    f"</style><script>{CANARY}</script>",
    f"</title><script>{CANARY}</script>",
    f"--><script>{CANARY}</script>",
    f"]]><script>{CANARY}</script>",
    f"<ScRiPt >{CANARY}</sCrIpT >",
    f"<script\n>{CANARY}</script\n>",
    f"<<script>{CANARY}//<</script>",
    f"</textarea><script>{CANARY}</script>",
    "<script src=https://example.invalid/x.js></script>",
    f"<script src='data:text/javascript,{CANARY}'></script>",
    f"<script type=module>{CANARY}</script>",
    "<!--<script>",
    "</noscript><script>",
    f"</select><script>{CANARY}</script>",
]
_HANDLERS = [
    f'<{tag} {event}="{CANARY}">'
    for tag, event in (
        ("img src=x", "onerror"),
        ("svg", "onload"),
        ("body", "onload"),
        ("iframe src=about:blank", "onload"),
        ("video src=x", "onerror"),
        ("audio src=x", "onerror"),
        ("details open", "ontoggle"),
        ("input autofocus", "onfocus"),
        ("select autofocus", "onfocus"),
        ("marquee", "onstart"),
        ("object data=x", "onerror"),
        ("style", "onload"),
        ("link rel=stylesheet href=x", "onerror"),
        ("a autofocus href=#", "onfocus"),
        ("button autofocus", "onfocus"),
        ("math", "onclick"),
        ("p", "onmouseover"),
        ("div tabindex=0 autofocus", "onfocus"),
    )
]
_ATTRIBUTES = [
    f'" onmouseover="{CANARY}',
    f"' onmouseover='{CANARY}",
    f'" autofocus onfocus="{CANARY}',
    f'"><img src=x onerror="{CANARY}">',
    f"'><img src=x onerror='{CANARY}'>",
    f"`><img src=x onerror={CANARY}>",
    '" style="position:fixed;inset:0',
    "' style='background:url(//example.invalid/x)",
    'x" id="data',
    'x" class="hidden',
    '\\"><img src=x>',
    "&quot;><img src=x>",
    "&#34; onload=&#34;x",
    "&lt;script&gt;alert(1)&lt;/script&gt;",
]
_LINKS = [
    f"javascript:{CANARY}",
    f"JaVaScRiPt:{CANARY}",
    f"java\tscript:{CANARY}",
    f'<a href="javascript:{CANARY}">x</a>',
    f"data:text/html,<script>{CANARY}</script>",
    "<base href=https://example.invalid/>",
    "<meta http-equiv=refresh content='0;url=https://example.invalid/'>",
    "<link rel=stylesheet href=https://example.invalid/x.css>",
    "<img src=https://example.invalid/x.png>",
    "<iframe src=https://example.invalid/></iframe>",
    "<form action=https://example.invalid/><button>x</button></form>",
    "<object data=https://example.invalid/x.swf></object>",
    "<embed src=https://example.invalid/x>",
    "url(https://example.invalid/x)",
    "@import 'https://example.invalid/x.css';",
    "<style>*{display:none}</style>",
    "<style>@import url(https://example.invalid/x)</style>",
    "vbscript:msgbox(1)",
    f'<iframe srcdoc="<script>parent.{CANARY}</script>"></iframe>',
]
_VECTOR = [
    f"<svg><script>{CANARY}</script></svg>",
    f'<svg><animate onbegin="{CANARY}" attributeName=x dur=1s>',
    f'<svg><a xlink:href="javascript:{CANARY}"><text>x</text></a></svg>',
    "<svg><use href=https://example.invalid/x.svg#x /></svg>",
    f'<svg><foreignObject><img src=x onerror="{CANARY}"></foreignObject></svg>',
    f"<math><mtext><script>{CANARY}</script></mtext></math>",
    "<svg><style>@import 'https://example.invalid/x';</style></svg>",
    "</svg><svg onload=1>",
]
_TEMPLATES = [
    "{{ 7 * 7 }}",
    "{% for x in range(9) %}x{% endfor %}",
    "{# comment #}",
    "{{ config }}",
    "{{ ''.__class__.__mro__ }}",
    "{% raw %}",
    "${7*7}",
    "#{7*7}",
    "<%= 7*7 %>",
    "{{constructor.constructor('x')()}}",
]
_CHARACTERS = [
    "nul\x00byte",
    "\x1b[31mred\x1b[0m",
    "\u202eeht desrever\u202c",
    "\u2066isolate\u2069",
    "zero\u200bwidth\u200d\ufeff",
    "lone \ud800 high",
    "lone \udfff low",
    "\udc00\ud800 swapped",
    "line\u2028separator\u2029paragraph",
    "\U000e0041\U000e0042 tags",
    "a" + "\u0301" * 300,
    "\uffff\ufffe",
    "\r\r\n",
    "\x7f\x80\x9f",
    "__proto__",
    "constructor",
]
STRINGS = [*_SCRIPTS, *_HANDLERS, *_ATTRIBUTES, *_LINKS, *_VECTOR, *_TEMPLATES, *_CHARACTERS]
_ENUMERATED = {
    "schema",
    "verdict",
    "association",
    "group",
    "kind",
    "adjustment",
    "words",
    "of",
    "undecided",
    "opposes",
} | {"matched_by", "sorter"}
_SITE = re.compile(r"L\d+\.E\d+")


def poisoned(value: Any, text: str, key: str = "") -> Any:
    """Copy findings with `text` before every free text and key of an open object; references still agree."""
    if isinstance(value, str):
        return value if key in _ENUMERATED or _SITE.fullmatch(value) else text + value
    if isinstance(value, list):
        return [poisoned(item, text, key) for item in value]
    if isinstance(value, dict):
        return {
            (text + name if key in _OPEN else name): poisoned(item, text, _child(key, name))
            for name, item in value.items()
        }
    return value


_OPEN = {"weights", "engine", "decoding", "versions", "tokenizer", "provenance:model"}


def _child(key: str, name: str) -> str:
    return f"provenance:{name}" if key == "provenance" and name == "model" else name


class Outline(HTMLParser):
    """Tags with attribute names in order, the attribute values, and the text of style and script elements."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, tuple[str, ...]]] = []
        self.values: list[tuple[str, str, str]] = []
        self.raw: list[tuple[str, str]] = []
        self.text: list[str] = []
        self._inside = ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, tuple(name for name, _ in attrs)))
        self.values += [(tag, name, value or "") for name, value in attrs]
        if tag in ("style", "script"):
            kind = dict(attrs).get("type") or "text"
            self._inside = f"{tag}:{kind}"
            self.raw.append((self._inside, ""))

    def handle_endtag(self, tag: str) -> None:
        if tag in ("style", "script"):
            self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside:
            self.raw[-1] = (self._inside, self.raw[-1][1] + data)
        else:
            self.text.append(data)

    def source(self, kind: str) -> str:
        """The text of the one element of this kind, for example ``script:application/json``."""
        (found,) = [content for name, content in self.raw if name == kind]
        return found

    @property
    def data(self) -> Any:
        return json.loads(self.source("script:application/json"))

    def tokens(self, number: int = 0) -> Any:
        """Token data of a question as the page's script unpacks it."""
        packed = self.data["tokens"][number]["packed"]
        return json.loads(zlib.decompress(base64.b64decode(packed)))

    @property
    def words(self) -> str:
        """All text with single spaces."""
        return " ".join("".join(self.text).split())
