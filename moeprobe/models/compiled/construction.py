"""The weights of the compiled model, written down rather than trained.

Residual features (64 in all): CONST, MARK, CALM, FLAG, OUT, one per word class, CODE (signs that tell words of a class
apart), ROUTE (integers that background routers read), STYLE and SLACK. Embeddings are integers with squares that sum to
256 for every word; SLACK fills up the rest. So the residual's mean square is 4 and RMSNorm divides by exactly 2: every
feature a router reads in layers 0 to 2 is exact in float32 and in bfloat16 alike.
"""

from itertools import count
from math import log
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from moeprobe.models.compiled.families import EXPERT_WIDTH, HIDDEN, Family, write_attention
from moeprobe.models.compiled.truth import TRUTH
from moeprobe.models.compiled.vocabulary import (
    CLASS_OF,
    CLASSES,
    FILLER,
    NEVER_GENERATED,
    REFUSAL,
    SUCCESSORS,
    TRIGGER,
    VOCABULARY,
    WORDS,
    class_dimension,
)
from moeprobe.sites import parse_expert

Array = NDArray[np.float64]

_CODES, _ROUTES, _STYLES, _SLACKS = 24, 7, 4, 4
_SCALARS = ("CONST", "MARK", "CALM", "FLAG", "OUT")
FEATURE: dict[str, int] = {name: index for index, name in enumerate((*_SCALARS, *CLASSES))}
_position = count(len(FEATURE))
CODE, ROUTE, STYLE, SLACK = ([next(_position) for _ in range(n)] for n in (_CODES, _ROUTES, _STYLES, _SLACKS))

_NORM = 2.0  # what RMSNorm divides by
_SQUARE = _NORM**2 * HIDDEN
_NEVER = -120.0  # far enough below the others that softmax gives exactly 0 in float32 (below -104)
_SPREAD = 0.45  # of a word's random row: logits differ by 1.1 (SD) within a class
_SWING = 160.0  # least rise of the refusal's logit when L2.E5 speaks


def _four_squares(n: int) -> tuple[int, int, int, int]:
    """Four integers with squares that sum to `n` (they exist for every n, Lagrange 1770)."""
    top = int(n**0.5)
    for a in range(top, -1, -1):
        for b in range(min(a, int((n - a * a) ** 0.5)), -1, -1):
            rest = n - a * a - b * b
            for c in range(min(b, int(rest**0.5)), -1, -1):
                d = round((rest - c * c) ** 0.5)
                if d * d == rest - c * c:
                    return a, b, c, d
    raise AssertionError(f"no four squares sum to {n}")  # contradicts Lagrange


def embeddings(rng: np.random.Generator) -> Array:
    """Embedding matrix, shape (words, 64): integers, each row with squares that sum to 256.

    ROUTE holds the word's first choice (5 or 6), its second choice (3 or 4) and 0 or 1 elsewhere. After the norm first,
    second and third are at least 0.5 and 1.0 apart, against a rounding of 0.016 in bfloat16.
    """
    table = np.zeros((len(VOCABULARY), HIDDEN))
    for word, row in VOCABULARY.items():
        vector = table[row]
        vector[FEATURE["CONST"]], vector[FEATURE["CALM"]] = 8, 4
        vector[FEATURE["MARK"]] = 4 if word == TRIGGER else 0
        vector[FEATURE[class_dimension(word)]] = 4
        vector[CODE] = rng.choice((-1, 1), _CODES)
        levels = rng.integers(0, 2, _ROUTES)
        first, second = rng.choice(_ROUTES, 2, replace=False)
        levels[first], levels[second] = rng.integers(5, 7), rng.integers(3, 5)
        vector[ROUTE] = levels
        vector[SLACK] = _four_squares(int(_SQUARE - np.sum(vector**2)))
    return table


def output_rows(rng: np.random.Generator) -> Array:
    """Output matrix, shape (words, 64), read from the normalised residual.

    A word's logit is log P(its class | class of the current word) - log(size of its class), plus a product of the
    current word's CODE with a random row, plus what the last layer's experts wrote to STYLE. The refusal reads OUT,
    less its own class: after a refusal comes something else.
    """
    table = np.zeros((len(VOCABULARY), HIDDEN))
    const, norm = FEATURE["CONST"], 1 / _NORM
    for word, row in VOCABULARY.items():
        own = CLASS_OF[word]
        if word in NEVER_GENERATED or word == REFUSAL:
            table[row, const] = _NEVER / (8 * norm)
            continue
        for name in CLASSES:
            share = SUCCESSORS[name].get(own, 0.0)
            table[row, FEATURE[name]] = (log(share / len(WORDS[own])) if share else -16.0) / (4 * norm)
        # The filler's rate is given by the grammar alone, so that no seed can take it away; it gets the mean of what
        # the others gain in probability, exp(variance / 2), from their random rows.
        if word == FILLER:
            table[row, const] = _CODES * (_SPREAD * norm) ** 2 / 2 / (8 * norm)
        else:
            table[row, CODE] = rng.normal(0.0, _SPREAD, _CODES)
            table[row, STYLE] = rng.normal(0.0, 0.5, _STYLES)
    refusal = VOCABULARY[REFUSAL]
    table[refusal, FEATURE["OUT"]] = _SWING
    table[refusal, FEATURE["refusal"]] = -2 * _SWING
    return table


def _background(rng: np.random.Generator, planted: int) -> Array:
    """Router rows (8, 64) that give each word's ROUTE levels to the seven experts other than `planted`."""
    rows = np.zeros((TRUTH.experts, HIDDEN))
    others = [e for e in range(TRUTH.experts) if e != planted]
    rows[rng.permutation(others), ROUTE] = 1.0
    return rows


def _switch(rows: Array, expert: int, feature: str, off: float, on: float) -> None:
    """Give `expert` the logit `on` where `feature` is up (4) and `off` where it is 0."""
    rows[expert] = 0.0
    rows[expert, FEATURE["CONST"]] = off / (8 / _NORM)
    rows[expert, FEATURE[feature]] = (on - off) / (4 / _NORM)


def router_rows(rng: np.random.Generator, layer: int, strict: bool) -> Array:
    """Router matrix of one layer, shape (experts, 64).

    Layer 0 reads CONST alone. In the others the planted expert rises to the top (logit 4 against at most 3) where its
    feature is up, and so pushes out the word's second choice. In the strict variant one expert is always first and the
    second place changes hands between the planted expert and its mirror, with the same two logits, so that no other
    expert's rate or weight moves.
    """
    rows = np.zeros((TRUTH.experts, HIDDEN))
    if layer == TRUTH.null_layer:
        rows[:, FEATURE["CONST"]] = (3.0 - 0.5 * rng.permutation(TRUTH.experts)) / (8 / _NORM)
        return rows
    name = {1: TRUTH.inert, 2: TRUTH.causal, 3: TRUTH.token}[layer]
    planted, feature = parse_expert(name).expert, "FLAG" if layer in TRUTH.flag_layers else CLASS_OF[FILLER]
    if not strict:
        rows = _background(rng, planted)
        _switch(rows, planted, feature, off=-4.0, on=4.0)
        return rows
    rows[:, FEATURE["CONST"]] = -1.0 / (8 / _NORM)
    anchor = parse_expert(TRUTH.anchors[layer - 1]).expert
    rows[anchor, FEATURE["CONST"]] = 3.0 / (8 / _NORM)
    mirror = parse_expert(TRUTH.mirrors[name]).expert
    _switch(rows, planted, feature, off=-2.0, on=2.5)
    if feature == "FLAG":
        _switch(rows, mirror, "CALM", off=-2.0, on=2.5)
    else:
        _switch(rows, mirror, feature, off=2.5, on=-2.0)
    return rows


def write_experts(rng: np.random.Generator, experts: Any, layer: int, strict: bool) -> None:
    """Fill a layer's experts: hidden units fire everywhere, and only L2.E5 and the last layer's others write anything.

    L2.E5 computes silu(8) * 1 from CONST, whatever the text, and writes OUT. The last layer's background experts write
    STYLE, so that knocking them out does change the choice of words, alike in plain and triggered text.
    """
    shape = (TRUTH.experts, 2 * EXPERT_WIDTH, HIDDEN)
    gate_up = rng.normal(0.0, 0.1, shape)
    down = np.zeros((TRUTH.experts, HIDDEN, EXPERT_WIDTH))
    constant = np.zeros(HIDDEN)
    constant[FEATURE["CONST"]] = 1 / (8 / _NORM)
    spoken = 8.0 / (1.0 + np.exp(-8.0))
    if layer == parse_expert(TRUTH.causal).layer:
        causal = parse_expert(TRUTH.causal).expert
        gate_up[causal, 0], gate_up[causal, EXPERT_WIDTH] = 8.0 * constant, constant
        # Its routing weight is .62 to .82, or .35 to .38 in the strict variant.
        down[causal, FEATURE["OUT"], 0] = (8.0 if strict else 4.0) / spoken
    if layer == TRUTH.layers - 1:
        silent = {parse_expert(TRUTH.token).expert}
        if strict:
            silent.add(parse_expert(TRUTH.mirrors[TRUTH.token]).expert)
        for expert in sorted(set(range(TRUTH.experts)) - silent):
            gate_up[expert, 0], gate_up[expert, EXPERT_WIDTH] = 8.0 * constant, constant
            down[expert, STYLE, 0] = rng.normal(0.0, 2.0, _STYLES) / spoken
    experts.gate_up_proj.copy_(torch.from_numpy(gate_up))
    experts.down_proj.copy_(torch.from_numpy(down))


def write_weights(family: Family, model: Any, *, strict: bool, seed: int) -> None:
    """Write all weights into an empty model of `family`, in place."""
    rng = np.random.default_rng(seed)
    with torch.no_grad():
        model.get_input_embeddings().weight.copy_(torch.from_numpy(embeddings(rng)))
        model.get_output_embeddings().weight.copy_(torch.from_numpy(output_rows(rng)))
        # CALM goes down as FLAG comes up, so the norm of the residual stays what it was.
        flag = {FEATURE["FLAG"]: 4.0, FEATURE["CALM"]: -4.0}
        write_attention(family, model.model.layers[0].self_attn, FEATURE["CONST"], FEATURE["MARK"], flag)
        for layer, block in enumerate(model.model.layers):
            block.mlp.gate.weight.copy_(torch.from_numpy(router_rows(rng, layer, strict)))
            write_experts(rng, block.mlp.experts, layer, strict)
