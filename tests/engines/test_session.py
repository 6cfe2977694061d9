"""record() end to end with each way of decoding: the trace holds what the model does when it is fed the text."""

import shutil
from collections import namedtuple
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import CompileConfig

from moeprobe.capture import Recorder, find_experts
from moeprobe.capture.buffers import BufferRecorder
from moeprobe.chat.stopping import StopTexts
from moeprobe.engines import Decoding, record
from moeprobe.engines import decoding as decoding_module
from moeprobe.engines import jobs as jobs_module
from moeprobe.engines.jobs import Size, batches, make_jobs, most_rows, widest
from moeprobe.engines.session import Session, pad_left
from moeprobe.errors import CaptureError, MoeprobeError, OutputError
from moeprobe.models import LoadedModel
from moeprobe.prompts import Prompt
from moeprobe.trace import SEGMENTS, Trace
from tests.capture.families.tiny import build
from tests.engines.routing import check_against_teacher_forcing, sequences
from tests.engines.scripted import byte_model, ids_of, writing

PROMPTS = [Prompt("a", prompt="a prompt of some length"), Prompt("b", prompt="b"), Prompt("c", prompt="c c c c")]


@pytest.fixture(scope="module")
def loaded() -> LoadedModel:
    torch.set_num_threads(1)
    return byte_model()


@pytest.fixture(autouse=True)
def fast_backend(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """Compile for real, but without making machine code."""
    if "slow" in request.keywords:
        return
    config = CompileConfig(backend="eager", fullgraph=True, dynamic=False, mode=None)  # type: ignore[arg-type]
    config._compile_all_devices = True
    monkeypatch.setattr(decoding_module, "_compilation", lambda loaded: config)


def run(loaded: LoadedModel, tmp_path: Path, prompts: Sequence[Prompt] = PROMPTS, **options: Any) -> Trace:
    more = {name: options.pop(name) for name in ("what", "layers", "assistant", "announce") if name in options}
    decoding = Decoding(**{"max_new_tokens": 9, "trim_loops": False} | options)
    trace = record(loaded, list(prompts), tmp_path / "a.trace", decoding=decoding, **more)
    trace.verify()
    return trace


WAYS: dict[str, dict[str, Any]] = {
    "greedy": {},
    "one by one": {"batch_size": 1},
    "one new token": {"max_new_tokens": 1},
    "sampling": {"sample": True, "samples": 3, "batch_size": 4},
    "beams": {"beams": 3, "samples": 2},
    "beams, two prompts at once": {"beams": 2, "samples": 1, "batch_size": 4},
    "beams, chunks, static": {"beams": 2, "samples": 2, "prefill_chunk": 4, "cache": "static"},
    "chunks": {"prefill_chunk": 5},
    "static": {"cache": "static"},
    "compiled": {"cache": "static", "compile": True},
    "compiled, sampling": {"cache": "static", "compile": True, "sample": True, "samples": 2, "batch_size": 2},
    "compiled, one new token": {"cache": "static", "compile": True, "max_new_tokens": 1},
    "compiled, chunks": {"cache": "static", "compile": True, "prefill_chunk": 3},
    "lookup": {"prompt_lookup": 3, "max_new_tokens": 25},
    "lookup, sampling": {"prompt_lookup": 3, "sample": True, "samples": 2},
}


@pytest.mark.parametrize("way", WAYS)
def test_every_way_of_decoding(loaded: LoadedModel, tmp_path: Path, way: str) -> None:
    trace = run(loaded, tmp_path, **WAYS[way])
    decoding = Decoding(**WAYS[way])
    assert trace.manifest.generations == 3 * decoding.samples
    assert [one.prompt_id for one in trace.generations] == [n for n in "abc" for _ in range(decoding.samples)]
    assert [one.sample for one in trace.generations] == [*range(decoding.samples)] * 3
    for one, (ids, _, _) in zip(trace.generations, sequences(trace), strict=True):
        assert ids[: one.prompt_rows] == ids_of(loaded, PROMPTS["abc".index(one.prompt_id)].prompt or "")
        assert one.answer_rows == one.generated - 1
    check_against_teacher_forcing(loaded, trace)
    if way in ("greedy", "one by one", "static", "compiled", "chunks"):
        assert [one.text for one in trace.generations] == greedy(loaded)


def greedy(loaded: LoadedModel) -> list[str]:
    """Greedy text without any of moeprobe, one sequence at a time, without a cache."""
    texts = []
    for prompt in PROMPTS:
        ids = ids_of(loaded, prompt.prompt or "")
        start = len(ids)
        while len(ids) < start + 9:
            with torch.inference_mode():
                ids.append(int(loaded.model(torch.tensor([ids]), use_cache=False).logits[0, -1].argmax()))
        texts.append(loaded.tokenizer.decode(ids[start:]))
    return texts


@pytest.mark.parametrize("sample", [False, True])
def test_an_assistant(loaded: LoadedModel, tmp_path: Path, sample: bool) -> None:
    helper = byte_model()
    with torch.no_grad():
        helper.model.lm_head.weight += 0.5 * torch.randn(helper.model.lm_head.weight.shape)
    decoding = Decoding(max_new_tokens=20, assistant="bytes", sample=sample, trim_loops=False)
    trace = record(loaded, PROMPTS, tmp_path / "a", decoding=decoding, assistant=helper, what=("logprob",))
    trace.verify()
    assert trace.manifest.decoding["assistant"] == "bytes"
    assert [one.generated for one in trace.generations] == [20] * 3
    check_against_teacher_forcing(loaded, trace)
    if not sample:
        assert [one.text[:9] for one in trace.generations] == [text[:9] for text in greedy(loaded)]


def test_compiling_once_for_many_widths(loaded: LoadedModel, tmp_path: Path) -> None:
    """Twelve widths, one by one: torch gives up after eight shapes, so all are padded to the widest."""
    prompts = [Prompt(f"p{n}", prompt="x" * n) for n in range(1, 13)]
    torch._dynamo.utils.counters.clear()
    trace = run(byte_model(), tmp_path, prompts, cache="static", compile=True, batch_size=1, max_new_tokens=3)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 2  # the model, and its outermost hook
    assert [one.prompt_rows for one in trace.generations] == list(range(1, 13))
    check_against_teacher_forcing(loaded, trace)


def test_what_the_compiler_refuses_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """Which shapes are one too many depends on the process's history; what the compiler raises does not."""
    decoding, fresh = Decoding(cache="static", compile=True, batch_size=1, max_new_tokens=3), byte_model()

    def refuse(**_: object) -> None:
        raise torch._dynamo.exc.FailOnRecompileLimitHit("limit")

    monkeypatch.setattr(fresh.model, "generate", refuse)
    jobs = make_jobs(fresh, [Prompt("p", prompt="x")], decoding, raw=False)
    with (
        Session(fresh, find_experts(fresh.model), decoding, rows=most_rows(jobs, decoding)) as session,
        pytest.raises(CaptureError, match=r"could not be compiled .*Leave --compile out"),
    ):
        session.generate(jobs, number=0)


@pytest.mark.slow
def test_compiled_to_machine_code(loaded: LoadedModel, tmp_path: Path) -> None:
    check_against_teacher_forcing(loaded, run(loaded, tmp_path, cache="static", compile=True))


def seq2seq(decoder_start: int) -> LoadedModel:
    words = byte_model().tokenizer
    model = build("switch_transformers")
    model.resize_token_embeddings(len(words))
    model.generation_config.decoder_start_token_id = decoder_start
    model.generation_config.eos_token_id = words.eos_token_id
    facts = {"id": "switch", "family": "switch_transformers", "class": type(model).__name__, "dtype": "float32"}
    return LoadedModel(model, words, "switch", facts)


@pytest.mark.parametrize("way", ["greedy", "sampling", "beams", "static"])
def test_an_encoder_decoder_model(tmp_path: Path, way: str) -> None:
    switch = seq2seq(3)
    trace = run(switch, tmp_path, what=("entropy", "logprob", "margin"), **WAYS[way]) if way != "beams" else run(
        switch, tmp_path, **WAYS[way]
    )  # fmt: skip
    shards = list(trace.shards())
    names = [info.name for info in trace.manifest.layers]
    assert {name.startswith("encoder.") for name in names} == {True, False}
    for one in trace.generations:
        shard, rows = shards[one.shard], slice(one.first_row, one.first_row + one.rows)
        ids = shard.token_id[rows].tolist()
        encoder, decoder = ids[: one.prompt_rows - 1], ids[one.prompt_rows - 1 :]
        assert encoder == ids_of(switch, PROMPTS["abc".index(one.prompt_id)].prompt or "")
        assert decoder[0] == 3
        assert len(decoder) == 1 + one.answer_rows == one.generated
        with torch.inference_mode(), Recorder(switch.model) as recorder:
            switch.model(input_ids=torch.tensor([encoder]), decoder_input_ids=torch.tensor([decoder]))
        for name, expected in recorder.routing().items():
            mine = slice(0, len(encoder)) if name.startswith("encoder.") else slice(len(encoder), None)
            mask = shard.mask(name)[rows]
            experts = np.where(mask, shard.experts(name)[rows], -1)
            assert (experts[mine] == expected.experts[0]).all(), name
            np.testing.assert_allclose(shard.weights(name)[rows][mine], expected.weights[0], atol=4e-6)
            outside = slice(len(encoder), None) if name.startswith("encoder.") else slice(0, len(encoder))
            assert not mask[outside].any()
        if way != "beams":
            assert np.isnan(shard.signal("logprob")[rows][: len(encoder)]).all()
            assert np.isfinite(shard.signal("logprob")[rows][len(encoder) :]).all()


def script(
    loaded: LoadedModel, tmp_path: Path, texts: Sequence[str | bytes | list[int]], prompts: Sequence[str] = ("p",),
    **options: Any,
) -> Trace:  # fmt: skip
    """One batch that goes on with `texts`."""
    ids = [text if isinstance(text, list) else ids_of(loaded, text) for text in texts]
    width = max(len(ids_of(loaded, prompt)) for prompt in prompts)
    with writing(loaded, ids, width):
        trace = run(loaded, tmp_path, [Prompt(f"p{n}", prompt=text) for n, text in enumerate(prompts)],
                    **{"max_new_tokens": 20} | options)  # fmt: skip
    check_against_teacher_forcing(loaded, trace)
    return trace


@pytest.mark.parametrize(
    ("text", "stops", "kept", "generated"),
    [
        ("abSTOPcd", ("STOP",), "ab", 6),
        ("STOSTOPcd", ("STOP",), "STO", 7),
        ("STOP", ("STOP",), "", 4),
        ("S", ("S",), "", 1),
        ("ab\n\nUser: x", ("\n\nUser:", "zzz"), "ab", 9),
        ("xy", ("y", "xy"), "", 2),
        ("né€", ("€",), "né", 6),
        ("né€", ("é",), "n", 3),
        ("日本語", ("本",), "日", 6),
        ("👩‍🚀!", ("!",), "👩‍🚀", 12),
    ],
)
def test_stop_texts_end_where_they_are_complete(
    loaded: LoadedModel, tmp_path: Path, text: str, stops: tuple[str, ...], kept: str, generated: int
) -> None:
    """A token is a byte here: every stop text is spelled over several tokens, letters beyond ASCII too."""
    one = script(loaded, tmp_path, [text], stop=stops).generations[0]
    assert (one.text, one.generated, one.stop) == (kept, generated, "stop")
    assert one.answer_rows == len(kept.encode())
    assert one.trims[0]["cause"] == "stop-string"
    assert one.trims[0]["kept"] == len(kept.encode())


def test_others_in_the_batch_go_on(loaded: LoadedModel, tmp_path: Path) -> None:
    texts = ["abSTOP and more", "a long answer that never stops at all", "STOP", "later STOP"]
    trace = script(loaded, tmp_path, texts, ["p", "a longer prompt", "x", "y"], stop=("STOP",))
    assert [one.text for one in trace.generations] == ["ab", texts[1][:20], "", "later "]
    assert [one.generated for one in trace.generations] == [6, 20, 4, 10]
    assert [one.stop for one in trace.generations] == ["stop", "length", "stop", "stop"]
    assert [one.answer_rows for one in trace.generations] == [2, 19, 0, 6]


def test_a_stop_text_does_not_begin_in_the_prompt(loaded: LoadedModel, tmp_path: Path) -> None:
    one = script(loaded, tmp_path, ["OP and on"], ["ends in ST"], stop=("STOP",)).generations[0]
    assert (one.stop, one.generated, one.trims) == ("length", 20, ())


def test_all_answers_of_a_batch_trimmed_to_nothing(loaded: LoadedModel, tmp_path: Path) -> None:
    trace = script(loaded, tmp_path, ["END", "END"], ["p", "pq"], stop=("END",), batch_size=2)
    assert [one.answer_rows for one in trace.generations] == [0, 0]
    shard = next(iter(trace.shards()))
    assert len(shard.token_id) == 3
    assert not (shard.segment == SEGMENTS.index("answer")).any()


def test_sequences_that_end_at_their_first_token(loaded: LoadedModel, tmp_path: Path) -> None:
    end = loaded.tokenizer.eos_token_id
    trace = script(loaded, tmp_path, [[end], [end], [*ids_of(loaded, "abc"), end]], ["p", "longer", "q"])
    assert [(one.text, one.generated, one.answer_rows, one.stop) for one in trace.generations] == [
        ("", 1, 0, "eos"), ("", 1, 0, "eos"), ("abc", 4, 3, "eos"),
    ]  # fmt: skip
    assert all(one.last_token == end for one in trace.generations)


@pytest.mark.parametrize("options", [{}, {"cache": "static", "compile": True}, {"beams": 2}])
def test_a_whole_batch_that_ends_at_once(loaded: LoadedModel, tmp_path: Path, options: dict[str, Any]) -> None:
    end = loaded.tokenizer.eos_token_id
    trace = script(loaded, tmp_path, [[end]] * 4, ["p", "q"], **options)
    assert [one.generated for one in trace.generations] == [1, 1]


def test_a_stop_within_accepted_drafts(loaded: LoadedModel, tmp_path: Path) -> None:
    """The prompt has the text already: several tokens are accepted in one step, past the end of the stop text."""
    trace = script(loaded, tmp_path, ["abSTOPcdef"], ["abSTOPcdef abSTOPcdef ab"], stop=("STOP",), prompt_lookup=8)
    one = trace.generations[0]
    assert (one.text, one.generated, one.stop, one.answer_rows) == ("ab", 6, "stop", 2)


def test_the_end_and_a_stop_text_in_one_place(loaded: LoadedModel, tmp_path: Path) -> None:
    end = loaded.tokenizer.eos_token
    one = script(loaded, tmp_path, [[*ids_of(loaded, "ab"), loaded.tokenizer.eos_token_id]], stop=(end,)).generations[0]
    assert (one.text, one.stop, one.generated, one.answer_rows) == ("ab", "eos", 3, 2)


def test_a_loop_cut_within_a_letter(loaded: LoadedModel, tmp_path: Path) -> None:
    """E1 82 AC, then E2 82 AC for ever: the loop of three bytes begins in the middle of the first letter."""
    text = "\u10ac" + "\u20ac" * 15
    one = script(loaded, tmp_path, [text], max_new_tokens=48, trim_loops=True).generations[0]
    assert one.trims[0]["cause"] == "loop"
    assert one.trims[0]["period"] == 3
    assert (one.answer_rows, one.text) == (4, "\u10ac")


def test_drafts_that_are_rejected_leave_no_trace_in_the_stops(loaded: LoadedModel) -> None:
    """Some versions of transformers show drafted tokens to the criteria as well."""
    stops = StopTexts(loaded.tokenizer, ["END"], 1)
    prompt = ids_of(loaded, "p")
    calls = [("aEND", True), ("aExyz", False), ("aExyzEN", False), ("aExyzEND", True)]
    for text, expected in calls:
        assert stops(torch.tensor([[*prompt, *ids_of(loaded, text)]]), None).tolist() == [expected]
    assert stops.ended(1).tolist() == [8]


def test_what_and_layers_come_back_from_the_store(loaded: LoadedModel, tmp_path: Path) -> None:
    what = ("logits", "margin:1", "shared-gate", "router-input:2", "norms", "residual:0,1", "entropy", "logprob")
    trace = run(loaded, tmp_path, what=what, layers=(1, 2), batch_size=2)
    assert [info.name for info in trace.manifest.layers] == ["L1", "L2"]
    assert trace.manifest.captured == ("experts", "weights", *what)
    expected = {"L1.logits": 8, "L2.logits": 8, "L1.margin": None, "L1.gate_sensitive": None, "L1.shared_gate": None,
                "L2.shared_gate": None, "L2.router_input": 32, "L1.norms": 2, "L2.norms": 2, "residual.L0": 32,
                "residual.L1": 32, "entropy": None, "logprob": None}  # fmt: skip
    assert {one.name: one.width for one in trace.manifest.signals} == expected
    shards = list(trace.shards())
    assert len(shards) == 2
    for one, (ids, _, _) in zip(trace.generations, sequences(trace), strict=True):
        with torch.inference_mode():
            output = loaded.model(torch.tensor([ids]), output_hidden_states=True, output_router_logits=True)
        shard, rows = shards[one.shard], slice(one.first_row, one.first_row + one.rows)

        def same(name: str, values: torch.Tensor, shard: Any = shard, rows: slice = rows) -> None:
            np.testing.assert_allclose(shard.signal(name)[rows], values.numpy(), atol=1e-4)

        same("L1.logits", output.router_logits[1])
        same("residual.L1", output.hidden_states[2][0])
        logs = output.logits[0].log_softmax(-1)[one.prompt_rows - 1 :]
        chosen = torch.tensor([*ids[one.prompt_rows :], one.last_token])
        np.testing.assert_allclose(
            shard.signal("logprob")[rows][one.prompt_rows - 1 :], logs.gather(-1, chosen[:, None])[:, 0], atol=1e-4
        )
        assert np.isfinite(shard.signal("entropy")[rows][one.prompt_rows - 1 :]).all()
        assert shard.signal("L1.gate_sensitive").dtype == np.bool_


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"what": ("margin",), "cache": "static", "compile": True}, "--compile records experts and weights only"),
        ({"what": ("logprob",), "beams": 2}, "logprob is not recorded in a beam search"),
        ({"what": ("lgits",)}, "Did you mean 'logits'"),
        ({"layers": (1, 7)}, r"L7 has no routed experts that could be recorded. They are in L0, L1, L2"),
        ({"layers": (1,), "what": ("margin:2",)}, "L2 is no recorded layer of experts. Recorded: L1"),
    ],
)
def test_what_cannot_be_recorded_is_said_before_the_first_token(
    loaded: LoadedModel, tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    loaded.model.register_forward_pre_hook(handle := lambda module, args: pytest.fail("the model ran"))
    try:
        with pytest.raises(MoeprobeError, match=message):
            run(loaded, tmp_path, **options)
    finally:
        for key, hook in list(loaded.model._forward_pre_hooks.items()):
            if hook is handle:
                del loaded.model._forward_pre_hooks[key]
    assert list(tmp_path.iterdir()) == []


def test_an_assistant_of_another_vocabulary(loaded: LoadedModel, compiled: LoadedModel) -> None:
    decoding, sites = Decoding(assistant="compiled"), find_experts(loaded.model)
    with pytest.raises(CaptureError, match="compiled has another vocabulary than bytes, so it cannot draft for it"):
        Session(loaded, sites, decoding, assistant=compiled)
    with pytest.raises(CaptureError, match="names the model that is handed over as assistant"):
        Session(loaded, sites, decoding)
    with pytest.raises(CaptureError, match="names the model that is handed over as assistant"):
        Session(loaded, sites, Decoding(), assistant=compiled)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("what", [(), ("logits", "margin", "norms:1", "residual:0", "router-input", "entropy")])
def test_the_announced_size_is_an_upper_bound_and_close(
    tmp_path: Path, dtype: torch.dtype, what: tuple[str, ...]
) -> None:
    loaded, announced = byte_model(dtype=dtype), list[Size]()
    # Eight sequences that reach their limit, so that only the last token, which has no row, is missing.
    prompts = [Prompt(f"p{n}", prompt="some words " * 3 + str(n)) for n in range(8)]
    loaded.model.generation_config.eos_token_id = None
    trace = run(replace(loaded, tokenizer=loaded.tokenizer), tmp_path, prompts, what=what, max_new_tokens=30,
                announce=announced.append)  # fmt: skip
    real = sum(len(one.read_bytes()) - _header(one) for one in trace.path.rglob("*.safetensors"))
    rows = sum(one.rows for one in trace.generations)
    assert [one.generated for one in trace.generations] == [30] * 8
    assert announced[0].tokens == rows + 8
    assert real <= announced[0].worst
    assert real >= announced[0].per_token * rows * 0.9, "no column costs less than was said"
    if dtype == torch.float32:
        assert real >= 0.9 * announced[0].worst


def _header(path: Path) -> int:
    """safetensors: eight bytes that give the length of a JSON header, then that."""
    with path.open("rb") as file:
        return 8 + int.from_bytes(file.read(8), "little")


def test_a_full_disk_is_refused_before_the_first_token(
    loaded: LoadedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    announced = list[Size]()
    run(loaded, tmp_path, announce=announced.append)
    shutil.rmtree(tmp_path / "a.trace")
    usage = namedtuple("usage", "total used free")

    def free(amount: int) -> None:
        monkeypatch.setattr(jobs_module.shutil, "disk_usage", lambda place: usage(10**9, 0, amount))

    free(announced[0].worst - 1)
    with pytest.raises(OutputError, match=r"The trace may take 0\.\d+ MB .*free. Record fewer layers or signals"):
        run(loaded, tmp_path)
    assert list(tmp_path.iterdir()) == []
    free(announced[0].worst)
    run(loaded, tmp_path)


def test_the_free_space_of_a_folder_that_is_not_there_yet(loaded: LoadedModel, tmp_path: Path) -> None:
    with pytest.raises(MoeprobeError, match="no folder"):
        record(loaded, PROMPTS, tmp_path / "new" / "folder" / "a.trace", decoding=Decoding(max_new_tokens=1))


def test_batches_and_rows() -> None:
    loaded = byte_model()
    jobs = make_jobs(loaded, PROMPTS, Decoding(sample=True, samples=2), raw=False)
    assert widest(jobs) == len("a prompt of some length")
    sizes = {
        (): [6],
        (("batch_size", 4),): [4, 2],
        (("prompt_lookup", 2),): [1] * 6,
        (("beams", 2), ("batch_size", 4), ("samples", 2), ("sample", False)): [4, 2],
        (("beams", 8), ("batch_size", 4), ("samples", 2), ("sample", False)): [2, 2, 2],
    }
    for options, expected in sizes.items():
        decoding = Decoding(**{"sample": True, "samples": 2} | dict(options))  # type: ignore[arg-type]
        found = list(batches(jobs, decoding))
        assert [len(one) for one in found] == expected
        assert [job for one in found for job in one] == jobs
        forwarded = max(
            len(one) // decoding.samples * decoding.beams if decoding.beams > 1 else len(one) for one in found
        )
        assert forwarded * (widest(jobs) + decoding.max_new_tokens) <= most_rows(jobs, decoding)


def test_padding_on_the_left() -> None:
    ids, mask = pad_left([[1, 2, 3], [4]], 9)
    assert ids.tolist() == [[1, 2, 3], [9, 9, 4]]
    assert mask.tolist() == [[1, 1, 1], [0, 0, 1]]
    assert pad_left([[1]], 9, 3)[0].tolist() == [[9, 9, 1]]


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_a_session_goes_on_after_a_batch_that_broke_off(loaded: LoadedModel, error: type[BaseException]) -> None:
    decoding = Decoding(max_new_tokens=6)
    jobs = make_jobs(loaded, PROMPTS, decoding, raw=False)
    sites = find_experts(loaded.model)
    calls = 0

    def breaks(module: Any, args: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise error

    own = loaded.model.generation_config
    handle = sites[1].module.register_forward_pre_hook(breaks)
    try:
        with Session(loaded, sites, decoding, ("margin", "logprob")) as session:
            with pytest.raises(error):
                session.generate(jobs, number=0)
            assert loaded.model.generation_config is own
            again = session.generate(jobs, number=0)
    finally:
        handle.remove()
    with Session(loaded, sites, decoding, ("margin", "logprob")) as session:
        clean = session.generate(jobs, number=0)
    assert (again.new == clean.new).all()
    for name, layer in clean.recording.layers.items():
        assert (again.recording.layers[name].experts == layer.experts).all()
    for name, values in clean.recording.signals.items():
        np.testing.assert_array_equal(again.recording.signals[name], values)


def test_which_recorder_is_used(loaded: LoadedModel) -> None:
    sites = find_experts(loaded.model)
    assert isinstance(Session(loaded, sites, Decoding()).recorder, Recorder)
    compiling = Session(loaded, sites, Decoding(cache="static", compile=True), rows=7, width=5)
    assert isinstance(compiling.recorder, BufferRecorder)
    assert (compiling.recorder.capacity, compiling.width) == (7, 5)
