"""Continuous batching through `record`: the same rows as padded batches give."""

from pathlib import Path

import numpy as np
import pytest

from moeprobe.engines import Decoding, record
from moeprobe.errors import CaptureError, MoeprobeError
from moeprobe.models import LoadedModel
from moeprobe.prompts import Prompt
from tests.engines.routing import check_against_teacher_forcing, sequences


def test_rows_are_those_of_padded_batches(
    compiled: LoadedModel, compiled_prompts: list[Prompt], tmp_path: Path
) -> None:
    plain = record(compiled, compiled_prompts[:7], tmp_path / "a.trace", decoding=Decoding(12, batch_size=4))
    packed = record(
        compiled, compiled_prompts[:7], tmp_path / "b.trace", decoding=Decoding(12, batch_size=4, continuous=True)
    )
    packed.verify()
    check_against_teacher_forcing(compiled, packed)
    assert [one.prompt_id for one in packed.generations] == [one.prompt_id for one in plain.generations]
    assert len({one.prompt_rows for one in packed.generations}) > 1
    for (ids, experts, weights), (other_ids, other, others) in zip(sequences(packed), sequences(plain), strict=True):
        assert ids == other_ids
        for layer in experts:
            assert (experts[layer] == other[layer]).all()
            np.testing.assert_allclose(weights[layer], others[layer], atol=1e-6)


def test_what_cannot_go_together_is_said(compiled: LoadedModel, compiled_prompts: list[Prompt], tmp_path: Path) -> None:
    with pytest.raises(MoeprobeError, match="depend on when they arrive"):
        Decoding(continuous=True, sample=True)
    with pytest.raises(CaptureError, match="entropy"):
        record(
            compiled, compiled_prompts[:2], tmp_path / "c.trace", decoding=Decoding(4, continuous=True),
            what=["entropy"],
        )  # fmt: skip
    assert list(tmp_path.iterdir()) == []
