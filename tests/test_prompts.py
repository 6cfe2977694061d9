"""Prompt files: what is read, and how mistakes are named."""

import io
from pathlib import Path

import pytest

from moeprobe.errors import PromptError
from moeprobe.prompts import Prompt, digest, read_prompts


def write(tmp_path: Path, text: str, name: str = "prompts.jsonl") -> Path:
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return path


def test_jsonl_keeps_every_field(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        '{"id": "a", "prompt": "Hello", "pair": "p", "label": 1, "metadata": {"topic": "greeting"}}\n\n'
        '{"id": 7, "messages": [{"role": "user", "content": "Hi\u2028there"}]}\n',
    )
    first, second = read_prompts(path)
    assert first == Prompt("a", "Hello", None, "p", 1, {"topic": "greeting"})
    assert second.id == "7"
    assert second.messages == ({"role": "user", "content": "Hi\u2028there"},)


def test_plain_lines_and_stdin() -> None:
    prompts = read_prompts(io.StringIO("first\n\n second \n"))
    assert [(p.id, p.prompt) for p in prompts] == [("line-1", "first"), ("line-3", "second")]


def test_stdin_must_be_utf8() -> None:
    assert read_prompts(io.BytesIO("caf\u00e9\n".encode()))[0].prompt == "caf\u00e9"
    with pytest.raises(PromptError, match="standard input is not UTF-8"):
        read_prompts(io.BytesIO(b"\xff\xfe"))


def test_txt_is_never_json(tmp_path: Path) -> None:
    assert read_prompts(write(tmp_path, '{"looks": "like json"}', "a.txt"))[0].prompt == '{"looks": "like json"}'


def test_limit_still_checks_the_whole_file(tmp_path: Path) -> None:
    path = write(tmp_path, '{"id": "a", "prompt": "x"}\n{"id": "b", "prompt": "y"}\n')
    assert len(read_prompts(path, limit=1)) == 1
    with pytest.raises(PromptError, match="line 2"):
        read_prompts(write(tmp_path, '{"id": "a", "prompt": "x"}\n{"id": "a", "prompt": "y"}\n'), limit=1)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"id": "a", "prompt": "x"', "line 1.*JSON"),
        ('{"id": "a"}', "either"),
        ('{"id": "a", "prompt": "x", "messages": []}', "not both"),
        ('{"id": "a", "prompt": "  "}', "empty"),
        ('{"id": "", "prompt": "x"}', "empty"),
        ('{"prompt": "x"}', "'id' is missing"),
        ('{"id": "a", "prompt": 3}', "'prompt' must be a text, found 3"),
        ('{"id": "a", "prompt": "x", "lable": 1}', "unknown field 'lable'"),
        ('{"id": "a", "prompt": "x", "label": []}', "label"),
        ('{"id": "a", "prompt": "x", "label": NaN}', "NaN"),
        ('{"id": "a", "prompt": "x", "label": 1e999}', "too large"),
        ('{"id": "a", "prompt": "x\\ud800y"}', "surrogate"),
        ('{"id": "a", "messages": []}', "empty"),
        ('{"id": "a", "messages": [{"role": "king", "content": "x"}]}', "unknown role 'king'"),
        ('{"id": "a", "messages": ["x"]}', "message 1.*object"),
        ('{"id": true, "prompt": "x"}', "'id' must be a text"),
    ],
)
def test_malformed_lines_are_named(tmp_path: Path, line: str, said: str) -> None:
    with pytest.raises(PromptError, match=said):
        read_prompts(write(tmp_path, line))


def test_empty_missing_and_binary_files(tmp_path: Path) -> None:
    with pytest.raises(PromptError, match="holds no prompts"):
        read_prompts(write(tmp_path, "\n \n"))
    with pytest.raises(PromptError, match="Could not read"):
        read_prompts(tmp_path / "none.jsonl")
    (tmp_path / "b.jsonl").write_bytes(b"\xff\xfe{")
    with pytest.raises(PromptError, match="not UTF-8"):
        read_prompts(tmp_path / "b.jsonl")


def test_digest_depends_on_content_and_order_only(tmp_path: Path) -> None:
    a, b = Prompt("a", "x"), Prompt("b", "y")
    assert digest([a, b]) == digest([Prompt("a", "x"), Prompt("b", "y")])
    assert digest([a, b]) != digest([b, a])
