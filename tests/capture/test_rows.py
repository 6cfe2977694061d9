"""Identity of rows: position, sequence and input token, the last write, beams; each check against what it rejects."""

import numpy as np
import pytest
import torch

from moeprobe.capture.adapters import Source
from moeprobe.capture.discover import ExpertsSite
from moeprobe.capture.recording import LayerRouting, Recording, StackRows, layer_routing
from moeprobe.capture.rows import UNKNOWN, Forward, Rows, check_tokens, follow_beams, rows_of, to_numpy
from moeprobe.capture.tape import Tape
from moeprobe.errors import CaptureError


def forward(past: int, ids: list[list[int]]) -> Forward:
    tensor = torch.tensor(ids)
    return Forward(past, *tensor.shape, tensor)


def test_rows_are_sequence_major_and_begin_at_the_cache_length() -> None:
    rows = rows_of([forward(0, [[7, 8, 9], [4, 5, 6]]), forward(3, [[1], [2]])])
    assert rows.sequence.tolist() == [0, 0, 0, 1, 1, 1, 0, 1]
    assert rows.position.tolist() == [0, 1, 2, 0, 1, 2, 3, 3]
    assert rows.token.tolist() == [7, 8, 9, 4, 5, 6, 1, 2]
    assert rows.grid().tolist() == [[0, 1, 2, 6], [3, 4, 5, 7]]


def test_a_cache_length_on_the_device_is_read_like_a_number() -> None:
    tensor = torch.tensor([[1, 2]])
    rows = rows_of([Forward(torch.tensor(5), 1, 2, tensor)])
    assert rows.position.tolist() == [5, 6]
    assert rows.grid().tolist() == [[-1] * 5 + [0, 1]]


def test_rejected_drafts_are_overwritten_or_lie_past_the_end() -> None:
    # Prompt 1 2; drafts 3 9 9 of which only 3 holds; then 4 is fed in at the place of the first rejected one.
    rows = rows_of([forward(0, [[1, 2, 3, 9, 9]]), forward(3, [[4]])])
    grid = rows.grid()
    assert grid.tolist() == [[0, 1, 2, 5, 4]]
    text, real = np.array([[1, 2, 3, 4]]), np.ones((1, 4), bool)
    check_tokens(grid, rows, text, real, "text stack")
    naive = np.arange(5)[None]  # rows as they flew by
    with pytest.raises(CaptureError, match="sequence 0, position 3 was computed from another token"):
        check_tokens(naive, rows, text, real, "text stack")


def test_embeddings_have_no_token_and_pass_the_check() -> None:
    rows = rows_of([Forward(0, 1, 2, None), forward(2, [[5]])])
    assert rows.token.tolist() == [UNKNOWN, UNKNOWN, 5]
    check_tokens(rows.grid(), rows, np.array([[8, 9, 5]]), np.ones((1, 3), bool), "x")
    with pytest.raises(CaptureError, match="position 2 was computed from another token"):
        check_tokens(rows.grid(), rows, np.array([[8, 9, 6]]), np.ones((1, 3), bool), "x")


def test_another_number_of_sequences_is_refused() -> None:
    with pytest.raises(CaptureError, match=r"number of sequences changed during the run \(1, 2\)"):
        rows_of([forward(0, [[1], [2]]), forward(1, [[1]])])


def test_a_forward_from_the_start_goes_over_the_same_text() -> None:
    rows = rows_of([forward(0, [[7, 8]]), forward(0, [[7, 8, 9]]), forward(3, [[5]])])
    assert rows.grid().tolist() == [[2, 3, 4, 5]]
    with pytest.raises(CaptureError, match="Two different texts"):
        rows_of([forward(0, [[7, 8]]), forward(2, [[9]]), forward(0, [[6, 8]])])
    # Compared with the last such forward, not the first: the text may have grown.
    with pytest.raises(CaptureError, match="Two different texts"):
        rows_of([forward(0, [[7]]), forward(0, [[7, 8]]), forward(0, [[7, 9]])])


def test_a_text_that_began_elsewhere_cannot_be_compared() -> None:
    assert rows_of([forward(3, [[5]]), forward(4, [[6]])]).grid().tolist() == [[-1, -1, -1, 0, 1]]
    for again in (forward(0, [[7, 8]]), Forward(torch.tensor(0), 1, 2, None)):
        with pytest.raises(CaptureError, match="began in the middle of a text"):
            rows_of([forward(3, [[5]]), again])


@pytest.mark.parametrize(
    ("text", "real", "message"),
    [
        (np.ones((1, 2), int), np.ones((1, 2), bool), "rows of 2 sequences by 2 positions were recorded, .* 1 by 2"),
        (np.ones((2, 3), int), np.ones((2, 3), bool), "2 sequences by 2 positions .* 2 by 3"),
        (np.ones((2, 2), int), np.ones((2, 2), bool), "encoder: sequence 1 has no recorded row at position 0"),
    ],
)  # fmt: skip
def test_incomplete_recordings_are_refused(text: np.ndarray, real: np.ndarray, message: str) -> None:
    rows = Rows(np.array([0, 0, 1]), np.array([0, 1, 1]), np.array([1, 1, 1]))
    with pytest.raises(CaptureError, match=message):
        check_tokens(rows.grid(), rows, text, real, "encoder")


def test_padding_need_not_be_recorded() -> None:
    rows = Rows(np.array([0, 0, 1]), np.array([0, 1, 1]), np.array([1, 1, 1]))
    check_tokens(rows.grid(), rows, np.ones((2, 2), int), np.array([[True, True], [False, True]]), "x")


def test_beams_are_followed_through_their_ancestors() -> None:
    # One prompt of 2 tokens on 2 batch rows, three generated tokens. The second beam was row 1, then row 0, then row 1.
    grid = np.array([[0, 1, 10, 11], [2, 3, 20, 21]])
    beams = np.array([[0, 0, 0], [0, 1, 0]])
    # Token 0 was fed in by the forward that chose token 1, in the row that token 1 was chosen from.
    assert follow_beams(grid, beams, 2).tolist() == [[0, 1, 10, 11], [0, 1, 20, 11]]


def test_a_beam_that_ended_early_has_no_rows_after_its_end() -> None:
    grid = np.arange(10).reshape(2, 5)
    found = follow_beams(grid, np.array([[1, 1, -1, -1]]), 2)
    assert found.tolist() == [[5, 6, 7, -1, -1]]
    rows = Rows(np.zeros(10, int), np.zeros(10, int), np.ones(10, int))
    with pytest.raises(CaptureError, match="no recorded row at position 3"):
        check_tokens(found, rows, np.ones((1, 5), int), np.ones((1, 5), bool), "x")


def test_one_generated_token_was_never_fed_in() -> None:
    assert follow_beams(np.arange(4).reshape(2, 2), np.array([[1], [0]]), 2).tolist() == [[2, 3], [0, 1]]


def site(stack: str = "") -> ExpertsSite:
    module = torch.nn.Linear(1, 1)
    return ExpertsSite(1, "model.layers.1.mlp", module, 4, False, stack, Source(module, "call", lambda a, k, o: (a, k)))


def test_choices_beyond_the_experts_are_absent() -> None:
    routing = layer_routing(site(), np.array([[0, 4], [-1, 3]]), np.array([[0.5, 0.25], [0.5, 1]], np.float32))
    assert routing.experts.tolist() == [[0, -1], [-1, 3]]
    assert routing.weights.tolist() == [[0.5, 0], [0, 1]]
    with pytest.raises(CaptureError, match="L1: the router gave NaN"):
        layer_routing(site(), np.array([[0]]), np.array([[np.inf]], np.float32))


def recording(stack: str) -> Recording:
    rows = rows_of([forward(0, [[1, 2], [3, 4]])])
    flat = LayerRouting(np.arange(4)[:, None] % 4, np.ones((4, 1), np.float32))
    return Recording((site(stack),), {stack: StackRows(rows, rows.grid())}, {site(stack).name: flat})


def test_an_encoder_runs_once_for_several_sequences() -> None:
    spread = recording("encoder").spread(4)
    assert spread.routing()["encoder.L1"].experts[..., 0].tolist() == [[0, 1], [0, 1], [2, 3], [2, 3]]
    assert recording("encoder").follow(np.array([[0]]), 1).stacks["encoder"].grid.shape == (2, 2)


@pytest.mark.parametrize(("stack", "sequences"), [("", 4), ("", 1), ("encoder", 3)])
def test_other_stacks_are_not_spread(stack: str, sequences: int) -> None:
    with pytest.raises(CaptureError, match=f"{sequences} sequences came back, but 2 were recorded"):
        recording(stack).spread(sequences)


def test_padded_routing_marks_what_was_not_recorded() -> None:
    rows = rows_of([forward(1, [[5]])])
    flat = LayerRouting(np.array([[2]]), np.ones((1, 1), np.float32))
    routing = Recording((site(),), {"": StackRows(rows, rows.grid())}, {"L1": flat}).routing()["L1"]
    assert routing.experts.tolist() == [[[-1], [2]]]
    assert routing.weights.tolist() == [[[0], [1]]]


def test_bfloat16_comes_over_exactly() -> None:
    values = torch.tensor([1.0, 0.3, -2.7], dtype=torch.bfloat16)
    assert (to_numpy([values[:1], values[1:]]) == values.float().numpy()).all()


def test_a_tape_joins_in_order_over_flushes() -> None:
    tape = Tape(["ids", "none"])
    for step in range(5):
        tape.put("ids", torch.tensor([[step]]))
        if step in (1, 2):
            tape.flush()
    assert tape.rows("ids") == 5
    assert tape.rows("none") == 0
    assert tape.array("ids").ravel().tolist() == [0, 1, 2, 3, 4]
    assert tape.array("ids").dtype == np.int32
    tape.clear()
    assert tape.rows("ids") == 0
