"""What a recorder hands over: flat rows, and where each token's row is."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from moeprobe.capture.discover import ExpertsSite
from moeprobe.capture.rows import UNKNOWN, Ints, Rows, check_tokens, follow_beams
from moeprobe.errors import CaptureError


@dataclass(frozen=True)
class LayerRouting:
    """Routing of one layer.

    Attributes:
        experts: (..., k) int64; -1 where a choice is absent.
        weights: (..., k) float32, gate weights as the model computed them; 0 where a choice is absent.
    """

    experts: NDArray[np.int64]
    weights: NDArray[np.float32]


@dataclass(frozen=True)
class StackRows:
    """Rows of one stack: their identity, and the row of each (sequence, position), -1 where there is none."""

    rows: Rows
    grid: Ints


@dataclass(frozen=True)
class Recording:
    """Everything recorded of one call of `generate` (or of some forwards).

    Attributes:
        sites: the recorded sites.
        stacks: by stack name.
        layers: routing by site name; arrays (recorded rows, k).
        signals: other signals by name, (recorded rows,) or (recorded rows, width); in rows of the site's stack, which
            for "residual.L3", "entropy" and "logprob" is the main one.
    """

    sites: tuple[ExpertsSite, ...]
    stacks: Mapping[str, StackRows]
    layers: Mapping[str, LayerRouting]
    signals: Mapping[str, NDArray[np.generic]] = field(default_factory=dict)

    def routing(self) -> dict[str, LayerRouting]:
        """Routing by site name in padded coordinates: experts and weights (sequences, positions, k)."""
        return {site.name: self._padded(site) for site in self.sites if site.stack in self.stacks}

    def follow(self, beams: Ints, prompt: int) -> "Recording":
        """The same recording seen from the returned sequences of a beam search (see rows.follow_beams)."""
        stacks = {
            name: StackRows(stack.rows, stack.grid if is_encoder(name) else follow_beams(stack.grid, beams, prompt))
            for name, stack in self.stacks.items()
        }
        return Recording(self.sites, stacks, self.layers, self.signals)

    def spread(self, sequences: int) -> "Recording":
        """An encoder runs each prompt once, however many sequences are generated from it: repeat its grid."""
        stacks = {}
        for name, stack in self.stacks.items():
            repeats, rest = divmod(sequences, len(stack.grid))
            if rest or (repeats != 1 and not is_encoder(name)):
                raise CaptureError(
                    f"{sequences} sequences came back, but {len(stack.grid)} were recorded. Nothing was written."
                )
            stacks[name] = StackRows(stack.rows, np.repeat(stack.grid, repeats, axis=0))
        return Recording(self.sites, stacks, self.layers, self.signals)

    def returned(self, sequences: Tensor, beams: Tensor | None = None) -> "Recording":
        """The same recording seen from the sequences that generate returned, every row checked against its token.

        The last token of each was chosen but never fed in: what may stand in its column is a rejected draft's row.

        Args:
            sequences: (sequences, L) tokens, prompts and padding included.
            beams: (sequences, generated) `beam_indices` of a beam search. A sequence has no rows after its end there.

        Returns:
            Grids (sequences, L - 1). An encoder's are repeated for each sequence, and neither cut nor checked: its
            tokens are others.

        Raises:
            CaptureError: another number of sequences was recorded, a row is absent, or was computed from another token.
        """
        tokens, seen = sequences.detach().cpu().numpy(), self
        width = tokens.shape[1] - 1
        real = np.ones((len(tokens), width), np.bool_)
        if beams is not None:
            indices = beams.cpu().numpy()
            prompt = tokens.shape[1] - indices.shape[1]
            seen = self.follow(indices, prompt)
            real[:, prompt:] = indices[:, 1:] >= 0
        seen = seen.spread(len(tokens))
        stacks = dict(seen.stacks)
        for name, stack in seen.stacks.items():
            if not is_encoder(name):
                seen.check(name, tokens, real)
                grid = stack.grid[:, :width]
                if self.stacks[name].grid.shape[1] != width and (stack.rows.token[grid[real]] == UNKNOWN).any():
                    # generate does not return the places of embeddings.
                    raise CaptureError(
                        "Prompts were fed in as embeddings, so rows cannot be given to the tokens of the returned "
                        "text. Hand over input_ids, or ask for the routing without sequences."
                    )
                stacks[name] = StackRows(stack.rows, grid)
        return replace(self, stacks=stacks)

    def check(self, stack: str, tokens: Ints, real: NDArray[np.bool_]) -> None:
        """Assert that each wanted token has a row of its own (see rows.check_tokens).

        Raises:
            CaptureError: it has not.
        """
        recorded = self.stacks[stack]
        check_tokens(recorded.grid, recorded.rows, tokens, real, stack or "text stack")

    def _padded(self, site: ExpertsSite) -> LayerRouting:
        grid, flat = self.stacks[site.stack].grid, self.layers[site.name]
        absent = (grid < 0)[..., None]
        return LayerRouting(
            np.where(absent, -1, flat.experts[grid]), np.where(absent, np.float32(0), flat.weights[grid])
        )


def is_encoder(stack: str) -> bool:
    """Whether a stack reads the prompt of an encoder-decoder model, each prompt once; all others run with the text."""
    return stack == "encoder"


def layer_routing(site: ExpertsSite, ids: NDArray[np.generic], weights: NDArray[np.generic]) -> LayerRouting:
    """Flat routing of one site; choices outside the experts (sentinels, zero-computation experts) become absent.

    Raises:
        CaptureError: NaN or infinite weights.
    """
    experts, gates = ids.astype(np.int64), weights.astype(np.float32)
    if not np.isfinite(gates).all():
        raise CaptureError(
            f"{site.name}: the router gave NaN or infinite weights, so this run says nothing. Try another dtype."
        )
    absent = (experts < 0) | (experts >= site.experts)
    return LayerRouting(np.where(absent, -1, experts), np.where(absent, np.float32(0), gates))
