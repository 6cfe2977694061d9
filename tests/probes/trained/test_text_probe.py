"""What a trained probe learns, how it is kept, and what it refuses."""

import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

from moeprobe.errors import OutputError, ProbeError
from moeprobe.probes import Example, Passage, check_probe_quality, checked, load_probe
from moeprobe.probes.trained import TextProbe, TrainableProbe, telling_ngrams
from moeprobe.probes.trained.store import EXAMPLES, FACTS, WEIGHTS
from tests.probes.trained.register_samples import TOPICS, register

UNSEEN = [
    "Please, would you kindly bring it?",
    "Now go on, quick, no fuss.",
    "ladder",
    "Ω",
    "",
    " ",
    "\ud800",
    "a" * 2_000,
]


@pytest.fixture(scope="module")
def polite() -> TextProbe:
    return TextProbe("polite", definition="Asks politely.").fit(register())


@pytest.fixture
def folder(polite: TextProbe, tmp_path: Path) -> Path:
    polite.save(tmp_path / "polite")
    return tmp_path / "polite"


def test_learns_the_register_and_not_the_topic(polite: TextProbe) -> None:
    assert isinstance(polite, TrainableProbe)
    assert polite.predict(UNSEEN[:2]).tolist() == [1, 0]
    quality = check_probe_quality(polite.cross_validated())
    assert quality.balanced_accuracy.value == 1.0
    assert polite.groups_.max() + 1 == len(TOPICS)
    told = telling_ngrams(polite, 8)
    assert {one.ngram for one in told if one.side == 1 and one.kind == "word"} & {"you", "kindly", "please", "would"}
    assert not {one.ngram for one in told} & set(TOPICS)
    one = next(one for one in told if one.ngram == "you")
    assert (one.positive_texts, one.negative_texts) == (24, 0)


def test_shows_when_it_learnt_the_topic() -> None:
    # every positive text speaks of bees, every negative one of salt
    made = [Example(f"{word} bees and hives {word}", 1, word) for word in TOPICS]
    made += [Example(f"{word} salt and mines {word}", 0, word) for word in TOPICS]
    told = telling_ngrams(TextProbe("topic").fit(made), 2)
    words = {side: {one.ngram for one in told if (one.kind, one.side) == ("word", side)} for side in (0, 1)}
    assert words == {1: {"bees and", "and hives"}, 0: {"salt and", "and mines"}}


def test_says_that_noise_cannot_be_learnt() -> None:
    # each text stands against its opposite: what speaks for a label in one fold speaks against it in the next
    made = [
        Example(f"{first} {second} of it", (a + b) % 2)
        for a, first in enumerate(TOPICS)
        for b, second in enumerate(TOPICS)
    ]
    with pytest.raises(ProbeError, match="Nothing could be learnt"):
        TextProbe("noise").fit(made)


def test_scores_are_the_same_after_loading_and_on_a_second_call(polite: TextProbe, folder: Path) -> None:
    texts = [*UNSEEN, *(one.text for one in polite.examples_)]
    loaded, judge = TextProbe.load(folder), load_probe(str(folder))
    assert polite.predict_proba(texts).tobytes() == loaded.predict_proba(texts).tobytes()
    assert polite.predict_proba(texts).tobytes() == polite.predict_proba(texts).tobytes()
    alone = [loaded.read(Passage(text)).score for text in texts]
    assert [np.nan if one is None else one for one in alone] == pytest.approx(
        polite.predict_proba(texts)[:, 1].tolist(), abs=0, nan_ok=True
    )
    assert [judge.read(Passage(text)).score for text in texts] == alone
    assert (judge.name, judge.version, judge.level, judge.definition) == (
        "polite", polite.version, "generation", "Asks politely.",
    )  # fmt: skip
    assert loaded.examples() == polite.examples()
    assert loaded.out_of_fold_.tobytes() == polite.out_of_fold_.tobytes()
    assert check_probe_quality(loaded.cross_validated()) == check_probe_quality(polite.cross_validated())


def test_the_version_is_that_of_the_content(polite: TextProbe) -> None:
    assert TextProbe("polite").fit(register()).version == polite.version
    assert TextProbe("polite").fit(register()[:-6]).version != polite.version
    assert TextProbe("polite", level="sentence").fit(register()).version != polite.version


def test_abstains_where_nothing_is_known(polite: TextProbe) -> None:
    scores = [polite.read(Passage(text)).score for text in ("", " \n", "Ω", "日本語", "\ud800")]
    assert scores == [None] * 5
    assert polite.predict(["", "Please, may I ask you?"]).tolist() == [-1, 1]


def test_marks_sentences_and_takes_the_best() -> None:
    probe = checked(TextProbe("polite", level="sentence").fit(register()))
    text = "Quick and no fuss with glass. Would you kindly look at the door? 👩‍👩‍👧 At once then."
    reading = probe.read(Passage(text))
    assert [text[span.start : span.end] for span in reading.spans] == ["Would you kindly look at the door?"]
    assert reading.score == max(span.score for span in reading.spans)
    assert probe.read(Passage("Quick and no fuss with glass. At once then.")).spans == ()


def test_a_megabyte_is_read_in_seconds(polite: TextProbe) -> None:
    start = time.process_time()
    for text in ("x" * 1_000_000, "Bring the salt. " * 62_500, "日" * 1_000_000):
        assert polite.predict_proba([text]).shape == (1, 2)
    assert time.process_time() - start < 20


@pytest.mark.parametrize(
    ("examples", "complaint"),
    [
        ([Example("a b", 1), Example("c d", 1)], "2 positive and 0 negative"),
        ([Example("a b", 1), Example(" ", 0)], "1 positive and 0 negative"),
        (
            [*register(), Example(register()[-1].text.replace(" ", "  "), 1)],
            r"1 texts occur with label 0 and with label 1.*example 73",
        ),
        ([Example(one.text, one.label, "same") for one in register()], "belong to 1 prompt"),
        ([Example("qwz", 1), Example("rty", 1), Example("uio", 0), Example("pas", 0)], "nothing to learn from"),
    ],
)
def test_refuses_what_it_cannot_learn_from(examples: list[Example], complaint: str) -> None:
    with pytest.raises(ProbeError, match=complaint):
        TextProbe("polite").fit(examples)


@pytest.mark.parametrize("name", ["../up", "Polite", "a b", "", "x" * 81, "<b>", "label:x"])
def test_refuses_hostile_names(name: str, tmp_path: Path, folder: Path) -> None:
    with pytest.raises(ProbeError, match="name"):
        TextProbe(name).fit(register())
    change(folder, lambda facts: facts.update(name=name))
    with pytest.raises(ProbeError, match="name"):
        load_probe(str(folder))


def change(folder: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    facts = json.loads((folder / FACTS).read_text())
    edit(facts)
    (folder / FACTS).write_text(json.dumps(facts))


def put(folder: Path, name: str, content: bytes) -> None:
    """Replace a file and its digest: what a forger would do."""
    import hashlib

    (folder / name).write_bytes(content)
    change(folder, lambda facts: facts["sha256"].update({name: hashlib.sha256(content).hexdigest()}))


@pytest.mark.parametrize(
    ("edit", "complaint"),
    [
        (lambda facts: facts.update(schema="moeprobe.trained-probe/2"), "Use the moeprobe that wrote it"),
        (lambda facts: facts.update(level="token"), "level"),
        (lambda facts: facts.update(definition=" "), "definition"),
        (lambda facts: facts.update(version="0" * 12), "not that of its content"),
        (lambda facts: facts["model"].update(slope=-1.0), "no trained model"),
        (lambda facts: facts["model"].update(intercept=1e300), "no trained model"),
        (lambda facts: facts["model"].update(offset="1"), "finite number"),
        (lambda facts: facts["features"].update(words=[1, 99]), "words"),
        (lambda facts: facts["features"].update(characters=[5, 3]), "characters"),
        (lambda facts: facts["features"].update(hash="md5"), "hashes by"),
        (lambda facts: facts["features"].update(room=2**62), "hashes by|whole number"),
        (lambda facts: facts["training"].update(penalties=[]), "penalties"),
        (lambda facts: facts["training"].update(folds=1), "whole number from 2"),
        (lambda facts: facts["training"]["out_of_fold"].__setitem__(0, 2), "out_of_fold"),
        (lambda facts: facts["training"]["group_of"].append(0), "group_of"),
        (lambda facts: facts["training"]["fold_of"].__setitem__(0, -1), "fold_of"),
        (lambda facts: facts.pop("training"), "'training' is missing"),
        (lambda facts: facts.update(model=[]), "must be an object"),
    ],
)
def test_refuses_an_altered_probe_json(folder: Path, edit: Callable[[dict[str, Any]], object], complaint: str) -> None:
    change(folder, edit)
    with pytest.raises(ProbeError, match=complaint) as caught:
        load_probe(str(folder))
    assert "polite" in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe", b'{"schema": NaN}', b"[" * 100_000])
def test_refuses_what_is_no_json(folder: Path, content: bytes) -> None:
    (folder / FACTS).write_bytes(content)
    with pytest.raises(ProbeError, match=FACTS):
        TextProbe.load(folder)


def altered(name: str, edit: Callable[[np.ndarray], np.ndarray]) -> Callable[[bytes], bytes]:
    def change(content: bytes) -> bytes:
        return save_tensors(
            {key: edit(one.copy()) if key == name else one for key, one in load_tensors(content).items()}
        )

    return change


@pytest.mark.parametrize(
    ("forge", "complaint"),
    [
        (lambda content: content[:50], "no safetensors file"),
        (lambda content: b"", "no safetensors file"),
        (lambda content: (2**62).to_bytes(8, "little") + content[8:], "no safetensors file"),
        (altered("coefficients", lambda one: one * np.nan), "not finite"),
        (altered("idf", lambda one: one + np.inf), "not finite"),
        (altered("idf", lambda one: one[:-1].copy()), "must be \\(features,\\)"),
        (altered("columns", lambda one: one[::-1].copy()), "rise strictly"),
        (altered("columns", lambda one: one - 2**40), "rise strictly"),
        (altered("columns", lambda one: one.astype(np.int32)), "expected columns"),
        (altered("coefficients", lambda one: one.reshape(-1, 1)), "must be \\(features,\\)"),
        (altered("coefficients", lambda one: one + 0.5), "version is not that of its content"),
        (lambda content: save_tensors({**load_tensors(content), "more": np.zeros(1)}), "expected columns"),
        (
            lambda content: save_tensors({key: one[:0].copy() for key, one in load_tensors(content).items()}),
            "one feature",
        ),
    ],
)
def test_refuses_forged_weights(folder: Path, forge: Callable[[bytes], bytes], complaint: str) -> None:
    put(folder, WEIGHTS, forge((folder / WEIGHTS).read_bytes()))
    with pytest.raises(ProbeError, match=complaint):
        TextProbe.load(folder)


@pytest.mark.parametrize("name", [WEIGHTS, EXAMPLES])
def test_refuses_altered_missing_and_linked_files(folder: Path, name: str) -> None:
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[:-2] + b"\x01" + content[-1:])
    with pytest.raises(ProbeError, match="altered"):
        TextProbe.load(folder)
    (folder / name).unlink()
    with pytest.raises(ProbeError, match="missing"):
        TextProbe.load(folder)
    (folder.parent / "elsewhere").write_bytes(content)
    (folder / name).symlink_to(folder.parent / "elsewhere")
    with pytest.raises(ProbeError, match="no plain file"):
        TextProbe.load(folder)


def test_refuses_a_file_that_is_too_large(folder: Path) -> None:
    with (folder / FACTS).open("ab") as handle:
        handle.truncate(1 << 30)
    with pytest.raises(ProbeError, match="1,073,741,824 bytes"):
        TextProbe.load(folder)


def test_is_written_whole_or_not_at_all(polite: TextProbe, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(OutputError, match="exists already"):
        polite.save(folder)
    polite.save(folder, force=True)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}

    def fail(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", fail)
    for target in (folder, folder.with_name("other")):
        with pytest.raises(OutputError, match="No space left"):
            polite.save(target, force=True)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert [path.name for path in folder.parent.iterdir()] == ["polite"]


def test_replaces_no_other_folder(polite: TextProbe, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "one.jpg").write_bytes(b"x")
    with pytest.raises(OutputError, match="no trained probe"):
        polite.save(tmp_path / "photos", force=True)
    assert (tmp_path / "photos" / "one.jpg").exists()


def test_keeps_hostile_text(tmp_path: Path) -> None:
    made = [*register(), Example("Please \u2028 <script>", 1), Example("Now \x1b[31m =cmd()", 0)]
    TextProbe("odd", definition="<b>=1+1\u202e").fit(made).save(tmp_path / "odd")
    loaded = TextProbe.load(tmp_path / "odd")
    assert loaded.examples()[-2].text == "Please \u2028 <script>"
    assert loaded.definition == "<b>=1+1\u202e"


@pytest.mark.parametrize("key", ["text", "prompt", "note", "unit"])
def test_refuses_half_a_surrogate_that_it_could_save_and_not_read(key: str) -> None:
    broken = replace(Example("Please go", 1), **{key: "so \ud800"})
    with pytest.raises(ProbeError, match=r"Example 73 holds half of a surrogate pair"):
        TextProbe("odd").fit([*register(), broken])
    with pytest.raises(ProbeError, match=r"definition holds half of a surrogate pair"):
        TextProbe("odd", definition="so \ud800")


def test_the_unit_is_kept_in_the_folder(tmp_path: Path) -> None:
    made = [replace(one, prompt="", unit=one.prompt) for one in register()]
    probe = TextProbe("polite").fit(made)
    probe.save(tmp_path / "polite")
    assert TextProbe.load(tmp_path / "polite").examples() == tuple(made)


@pytest.mark.parametrize(("level", "folds"), [("token", 5), ("page", 5), ("sentence", 1), ("sentence", 101)])
def test_refuses_settings(level: Any, folds: int) -> None:
    with pytest.raises(ProbeError):
        TextProbe("x", level=level, folds=folds)
