"""What a recording holds in memory, per token and layer, while it runs and when it is read."""

import gc
import tracemalloc
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from benchmarks.models import qwen3_moe
from moeprobe.capture import Recorder
from moeprobe.capture.tape import FLUSH_EVERY

CHUNK = 512


@dataclass(frozen=True)
class Memory:
    """Bytes per token and layer of a recording of ids and weights with k = 8.

    Attributes:
        phase: "prefill" (in chunks of 512) or "decode" (one token a forward).
        layers: of the model.
        tokens: recorded.
        waiting: storages behind the tensors that wait for the next join, whole storages counted.
        resident: growth of the process's resident memory over the second half of the run.
        python: growth of Python objects (tracemalloc) over the second half.
        reading: resident memory at its highest while the recording is turned into arrays, above that at the end of the
            run; None where the kernel does not tell.
    """

    phase: str
    layers: int
    tokens: int
    waiting: float
    resident: float
    python: float
    reading: float | None

    def record(self) -> dict[str, object]:
        """As JSON."""
        return asdict(self)


def measure(phase: str, *, layers: int = 8, tokens: int = 65536) -> Memory:
    """Record `tokens` tokens of a model whose own activations are small, and see what stays.

    Args:
        phase: "prefill" or "decode".
        layers: of the model.
        tokens: to record; half of them fill what is bounded (the tape that waits, the allocator's own).
    """
    model = qwen3_moe(layers, torch.float32, small=True)
    rows = CHUNK if phase == "prefill" else 1
    ids = torch.zeros(1, rows, dtype=torch.int64)
    half = tokens // rows // 2
    with torch.inference_mode(), Recorder(model) as recorder:

        def run() -> tuple[int, int, int]:
            """Waiting, resident and Python bytes after half of the tokens."""
            most = 0
            for count in range(half):
                model(input_ids=ids, use_cache=False, logits_to_keep=1)
                if count in (FLUSH_EVERY - 1, half - 1):
                    most = max(most, _waiting(recorder))
            gc.collect()
            return most, _status("VmRSS"), tracemalloc.get_traced_memory()[0]

        tracemalloc.start()
        first, second = run(), run()
        tracemalloc.stop()
        gc.collect()
        after, watched = _status("VmRSS"), _forget_peak()
        recorder.recording()
        peak = _status("VmHWM")
    cells = half * rows * layers
    return Memory(
        phase=phase,
        layers=layers,
        tokens=2 * half * rows,
        waiting=first[0] / (min(half, FLUSH_EVERY) * rows * layers),
        resident=(second[1] - first[1]) / cells,
        python=(second[2] - first[2]) / cells,
        reading=(peak - after) / (2 * cells) if watched else None,
    )


def _waiting(recorder: Recorder) -> int:
    storages = {
        tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes()
        for site in recorder.sites
        for kind in ("experts", "weights")
        for tensor in recorder.tape.waiting(f"{site.name}.{kind}")
    }
    return sum(storages.values())


def _status(name: str) -> int:
    """A line of /proc/self/status in bytes."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))


def _forget_peak() -> bool:
    """Start VmHWM anew; False where the kernel does not let us."""
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        return False
    return True
