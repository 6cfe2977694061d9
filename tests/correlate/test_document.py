"""What a findings document says of the model comes from a manifest that another program may have written."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from moeprobe.correlate.document import findings_of
from moeprobe.errors import TraceError
from moeprobe.trace import Trace


def altered(trace: Trace, **facts: Any) -> Any:
    model = {key: value for key, value in (trace.manifest.model | facts).items() if value is not None}
    return SimpleNamespace(path=trace.path, digest=trace.digest, manifest=replace(trace.manifest, model=model))


@pytest.mark.parametrize("key", ["id", "family", "num_hidden_layers"])
def test_a_missing_key_of_the_model_is_named(compiled_trace: Trace, key: str) -> None:
    with pytest.raises(TraceError, match=rf"run\.json: the section 'model' must have '{key}' .*does not have it"):
        findings_of(altered(compiled_trace, **{key: None}), [])


@pytest.mark.parametrize(("key", "value"), [("id", 3), ("num_hidden_layers", "4"), ("num_hidden_layers", True)])
def test_a_value_of_another_type(compiled_trace: Trace, key: str, value: object) -> None:
    with pytest.raises(TraceError, match=f"must have '{key}'.* has {value!r}"):
        findings_of(altered(compiled_trace, **{key: value}), [])


def test_the_model_section_is_taken_over(compiled_trace: Trace) -> None:
    facts = findings_of(altered(compiled_trace, id="other"), []).model
    assert facts["id"] == "other"
    assert facts["num_hidden_layers"] == compiled_trace.manifest.model["num_hidden_layers"]
    assert facts["family"] == compiled_trace.manifest.model["family"]
