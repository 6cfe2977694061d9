"""Fingerprints of a model's files and weights: what can be said of 70 GB without reading all of it.

- `sha256:HEX`: every byte of a file. For files of up to 64 MiB, and for all weight files on request (`--hash-weights`).
- `sampled:HEX`: SHA-256 over the file's size, its safetensors header (names, dtypes, shapes and places of all tensors),
  and four blocks of 4 KiB of each tensor: the first, the last, and two between. A tensor that was trained or replaced
  is noticed; a handful of altered numbers between the blocks is not.
- hub: the names of a hub's cached files, which are the hub's own checksums (SHA-256 of large files); not recomputed.
"""

import hashlib
import itertools
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import torch
from torch import Tensor, nn

from moeprobe.files import sha256

# Above this, hashing takes longer than loading a page of text; most runs are shorter than hashing 70 GB.
HASHED_BYTES = 64 << 20
_BLOCK = 4096
_BLOCKS = 4
# Blocks of a large file that is no safetensors: 16 MiB in all.
_OTHER_BLOCKS = 4096
_KEPT = re.compile(r"\.(json|safetensors|jinja|model|gguf)$")
_WEIGHTS = re.compile(r"\.(safetensors|gguf)$")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_SHA1 = re.compile(r"[0-9a-f]{40}")


def file_digests(folder: Path) -> dict[str, str]:
    """Digest of each file of a model, "sha256:HEX" or "sampled:HEX" by its size."""
    return {
        path.name: f"sha256:{sha256(path)}" if path.stat().st_size <= HASHED_BYTES else f"sampled:{sampled(path)}"
        for path in _files(folder)
    }


def weight_hashes(folder: Path) -> dict[str, str]:
    """Whole SHA-256 of each weight file, "sha256:HEX". Reads all of them."""
    return {path.name: f"sha256:{sha256(path)}" for path in _files(folder) if _WEIGHTS.search(path.name)}


def is_weights(name: str) -> bool:
    """Whether a file holds weights, by its name."""
    return _WEIGHTS.search(name) is not None


def hub_folder(name: str, revision: str | None) -> Path | None:
    """Where the hub's cache holds a model's files, or None."""
    from huggingface_hub import try_to_load_from_cache

    try:
        found = try_to_load_from_cache(name, "config.json", revision=revision or "main")
    except (ValueError, OSError):  # no name that a hub could have
        return None
    return Path(found).parent if isinstance(found, str) else None


def hub_checksums(folder: Path) -> dict[str, str]:
    """What the hub says of the files in a folder of its cache: "sha256:HEX" of large files, "git:HEX" of small ones.

    The cache keeps each file under the hub's checksum and links to it. Where it could not link, nothing is known.
    """
    found = {}
    for path in _files(folder):
        target = path.resolve().name if path.is_symlink() else ""
        if _SHA256.fullmatch(target):
            found[path.name] = f"sha256:{target}"
        elif _SHA1.fullmatch(target):
            found[path.name] = f"git:{target}"
    return found


def sampled(path: Path) -> str:
    """Hex SHA-256 over size, header and blocks of a file; see the module."""
    size = path.stat().st_size
    digest = hashlib.sha256(f"moeprobe sampled/1 {size}\n".encode())
    with path.open("rb") as file:
        for start, end in _spans(file, size, digest):
            file.seek(start)
            digest.update(file.read(end - start))
    return digest.hexdigest()


def memory_digest(module: nn.Module) -> str:
    """Hex SHA-256 of all parameters and buffers of a model in memory, names and dtypes included. For small models."""
    digest = hashlib.sha256()
    tensors: Iterator[tuple[str, Tensor]] = itertools.chain(module.named_parameters(), module.named_buffers())
    for name, tensor in tensors:
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        whole = tensor.detach().cpu().contiguous().reshape(-1)
        digest.update(whole.view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_file() and _KEPT.search(path.name))


def _spans(file: BinaryIO, size: int, digest: "hashlib._Hash") -> Iterator[tuple[int, int]]:
    """Byte ranges to hash; a safetensors header goes into `digest` first."""
    header = _header(file, size)
    if header is None:
        yield from _blocks(0, size, _OTHER_BLOCKS)
        return
    digest.update(header)
    body = 8 + len(header)
    for start, end in sorted(_offsets(header)):
        if 0 <= start < end <= size - body:
            yield from _blocks(body + start, body + end, _BLOCKS)


def _blocks(start: int, end: int, count: int) -> Iterator[tuple[int, int]]:
    """`count` blocks spread evenly over [start, end), the first and the last included; all of it where it is short."""
    room = end - start - _BLOCK
    if room <= (count - 1) * _BLOCK:
        yield start, end
        return
    for number in range(count):
        first = start + room * number // (count - 1)
        yield first, first + _BLOCK


def _header(file: BinaryIO, size: int) -> bytes | None:
    length = int.from_bytes(file.read(8), "little")
    if not 2 <= length <= min(size - 8, 100 << 20):
        return None
    header = file.read(length)
    return header if header[:1] == b"{" else None


def _offsets(header: bytes) -> Iterator[tuple[int, int]]:
    try:
        entries = json.loads(header)
    except (ValueError, RecursionError):
        return
    for entry in entries.values():
        offsets = entry.get("data_offsets") if isinstance(entry, dict) else None
        if isinstance(offsets, list) and len(offsets) == 2 and all(type(number) is int for number in offsets):
            yield offsets[0], offsets[1]
