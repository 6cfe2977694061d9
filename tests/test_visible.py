"""Hidden characters: one definition, complete against Python's own Unicode tables."""

import sys
import unicodedata

import pytest

from moeprobe.visible import HIDDEN, PROSE_LIMIT, cleaned, shortened, visible


def test_codes_and_what_stays() -> None:
    assert visible("a\u202eb") == "a\u27e8U+202E\u27e9b"
    assert visible("\x00\ud800\U000e0041") == "\u27e8U+0000\u27e9\u27e8U+D800\u27e9\u27e8U+E0041\u27e9"
    assert visible("tab\tline\n \u00e9 \u05d0 \u4e2d \U0001f600") == "tab\tline\n \u00e9 \u05d0 \u4e2d \U0001f600"


def test_every_control_format_surrogate_and_separator_is_covered() -> None:
    hidden = {"Cc", "Cf", "Cs", "Zl", "Zp"}
    missed = [
        hex(code)
        for code in range(sys.maxunicode + 1)
        if unicodedata.category(chr(code)) in hidden and chr(code) not in "\t\n" and visible(chr(code)) == chr(code)
    ]
    assert missed == []


def test_no_letter_mark_digit_or_symbol_is_lost_by_mistake() -> None:
    # Letters without ink (Hangul fillers, the blank Braille cell) and variation selectors are hidden on purpose.
    wanted = {
        0x034F,
        0x115F,
        0x1160,
        0x17B4,
        0x17B5,
        0x2800,
        0x3164,
        0xFFA0,
        *range(0xFE00, 0xFE10),
        *range(0x180B, 0x180E),
        0x180F,
    }
    kept = {"Lu", "Ll", "Lo", "Lt", "Lm", "Nd", "Mn", "Mc", "Sm", "So", "Po", "Zs"}
    lost = {
        code for code in range(0xE0000) if unicodedata.category(chr(code)) in kept and visible(chr(code)) != chr(code)
    }
    assert lost == wanted


def test_result_is_utf8() -> None:
    text = "".join(chr(low) + chr(high) for low, high in HIDDEN)
    with pytest.raises(UnicodeEncodeError):
        text.encode()  # it holds surrogates
    assert visible(text).encode().decode() == visible(text)


def test_shortened_says_how_much_is_missing() -> None:
    assert shortened("x" * 1_000_000, 300) == "x" * 300 + "\u2026 [999,700 more characters left out]"
    assert shortened("x" * 300, 300) == "x" * 300


def test_cleaned_reaches_keys_and_leaves_numbers() -> None:
    assert cleaned({"a\u200b": ["\x00", 1.5, None, True]}) == {
        "a\u27e8U+200B\u27e9": ["\u27e8U+0000\u27e9", 1.5, None, True]
    }
    assert len(cleaned("y" * 50_000)) < PROSE_LIMIT + 60


def test_deep_nesting_does_not_exhaust_the_stack() -> None:
    deep: list[object] = []
    for _ in range(100_000):
        deep = [deep]
    assert "nested too deeply" in str(cleaned(deep))
