"""Characters that hide or reorder text, made visible, and cells that no program takes for a formula.

The one definition of both, for text of models and prompts is hostile. The HTML part is cleaned here, in Python. Token
text is built lazily by the page's script, which gets `HIDDEN` as data.
"""

import re
from typing import Any

HIDDEN: tuple[tuple[int, int], ...] = (
    (0x0000, 0x0008),  # C0 controls; tab (09) and line feed (0A) stay, they only move text
    (0x000B, 0x001F),
    (0x007F, 0x009F),  # delete and the C1 controls
    (0x00AD, 0x00AD),  # soft hyphen
    (0x034F, 0x034F),  # combining grapheme joiner
    (0x0600, 0x0605),  # Arabic number signs (format characters)
    (0x061C, 0x061C),  # Arabic letter mark (bidi)
    (0x06DD, 0x06DD),
    (0x070F, 0x070F),
    (0x0890, 0x0891),
    (0x08E2, 0x08E2),
    (0x115F, 0x1160),  # Hangul fillers: letters without ink
    (0x17B4, 0x17B5),
    (0x180B, 0x180F),  # Mongolian variation selectors and vowel separator
    (0x200B, 0x200F),  # zero-width space, joiners, direction marks
    (0x2028, 0x202E),  # line and paragraph separator, bidi embeddings and overrides
    (0x2060, 0x206F),  # word joiner, invisible operators, bidi isolates
    (0x2800, 0x2800),  # the Braille pattern without dots
    (0x3164, 0x3164),
    (0xD800, 0xDFFF),  # unpaired surrogates: UTF-8 cannot hold them
    (0xFDD0, 0xFDEF),  # noncharacters
    (0xFE00, 0xFE0F),  # variation selectors: a known channel for smuggled text
    (0xFEFF, 0xFEFF),
    (0xFFA0, 0xFFA0),
    (0xFFF0, 0xFFFB),
    (0xFFFE, 0xFFFF),
    (0x110BD, 0x110BD),
    (0x110CD, 0x110CD),
    (0x13430, 0x1343F),  # Egyptian hieroglyph format controls
    (0x1BCA0, 0x1BCA3),
    (0x1D173, 0x1D17A),  # musical format controls
    (0xE0000, 0xE0FFF),  # tags and more variation selectors
    *((plane * 0x10000 + 0xFFFE, plane * 0x10000 + 0xFFFF) for plane in range(1, 17)),
)
_HIDDEN = re.compile("[" + "".join(f"{chr(low)}-{chr(high)}" for low, high in HIDDEN) + "]")
# First characters that spreadsheet programs take for the beginning of a formula (OWASP, CSV injection), wide ones too.
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "'", "＝", "＋", "－", "＠")

PROSE_LIMIT = 2_000
TOKEN_LIMIT = 300
_DEEPEST = 30


def visible(text: str) -> str:
    """Give `text` with each hidden character as its code, for example ``\u27e8U+202E\u27e9``. Encodable as UTF-8."""
    return _HIDDEN.sub(lambda match: f"\u27e8U+{ord(match[0]):04X}\u27e9", text)


def guarded(text: str) -> str:
    """A spreadsheet's cell: a quotation mark stands before what would be read as a formula, or before one."""
    return "'" + text if text.lstrip(" \u00a0").startswith(_FORMULA) else text


def shortened(text: str, limit: int) -> str:
    """Cut `text` after `limit` characters and say how many were left out."""
    if len(text) <= limit:
        return text
    return f"{text[:limit]}\u2026 [{len(text) - limit:,} more characters left out]"


def cleaned(value: Any, depth: int = 0) -> Any:
    """Copy a JSON value with every string (keys too) shortened and made visible.

    Nesting deeper than 30 is replaced by a note, so that a hostile file cannot exhaust the stack.
    """
    if isinstance(value, str):
        return visible(shortened(value, PROSE_LIMIT))
    if depth > _DEEPEST:
        return "[nested too deeply to show]" if isinstance(value, dict | list | tuple) else value
    if isinstance(value, dict):
        return {cleaned(str(key)): cleaned(item, depth + 1) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [cleaned(item, depth + 1) for item in value]
    return value
