"""What is measured of one family, experts implementation and dtype: edits against hand-written arithmetic."""

import inspect
from dataclasses import dataclass, fields
from functools import cache

import torch
from torch import Tensor
from transformers import PreTrainedModel

from moeprobe.capture import ExpertsSite
from moeprobe.editing import Places, Write, find_places, reading, writing
from tests.capture.families import tiny
from tests.capture.families.checks import forward, prompts
from tests.editing.by_hand import EXPERTS, Call, calls, contributions, layer_output, outputs, weights_of

IMPLEMENTATIONS = ("eager", "batched_mm", "grouped_mm")
SWAPS = ("replace", "output", "routing")
KINDS = ("head", "shared", "moe", "residual")
NOTHING = float("nan")
FLOAT32, ROUNDINGS = 2e-6, 4  # largest difference allowed, relative to the largest value; in bfloat16 in roundings


@dataclass(frozen=True)
class Exact:
    """What was found. Figures are the largest difference, relative to the largest value of what they are held against;
    `*_bitwise` whether not a bit differs. NaN: there is no hand-written reference for this family.

    Attributes:
        reading: reading every kind of site changes no bit of the logits.
        own: writing every kind of site's own value, in every way, changes no bit of the logits.
        unchosen: zeroing, scaling or rerunning an expert that a row did not choose changes no bit of the logits.
        added: a value written there is added to the experts' output, bit for bit.
        partner: another row's live value, and the same value given: the same bits.
        contribution: w * E(x) that is read, against the raw weights.
        total: contributions of all experts, against the output of the experts.
        layer: the experts' output with three swaps in it, against the patched output.
        logits: logits with these swaps, against those of the hand-patched model.
        sets: the same for two experts of one layer and one of another together.
        rows: sites that differ by row in one forward, against one forward for each.
        elsewhere: logits with own values that were read in a batch of another order.
    """

    reading: bool
    own: bool
    unchosen: bool
    added: bool
    partner: bool
    contribution: float
    total: float
    layer: float
    logits: float
    sets: float
    rows: float
    elsewhere: float

    def faults(self, dtype: torch.dtype) -> list[str]:
        """Names of what is not as it must be. In bfloat16 one rounding may flip a later router, so logits after an edit
        are not held against another way of computing them; what happens within the layer is."""
        bars = ["reading", "own", "unchosen", "added", "partner"]
        found = [name for name in bars if not getattr(self, name)]
        limit = FLOAT32 if dtype == torch.float32 else ROUNDINGS * 2.0**-8
        local = ("contribution", "total", "layer")
        for name in local if dtype != torch.float32 else (*local, "logits", "sets", "rows", "elsewhere"):
            if getattr(self, name) > limit:
                found.append(f"{name} {getattr(self, name):.1e}")
        return found


@cache
def model_of(family: str, dtype: torch.dtype) -> PreTrainedModel:
    """The tiny family in a dtype."""
    built: PreTrainedModel = tiny.build(family).to(dtype)
    return built


def implementations(family: str) -> tuple[str, ...]:
    """The experts implementations that a family has."""
    site = next(iter(_sites(find_places(model_of(family, torch.float32))).values()))
    return IMPLEMENTATIONS if hasattr(type(site.module).forward, "__wrapped__") else ("eager",)


def _sites(places: dict[int, Places]) -> dict[int, ExpertsSite]:
    return {layer: one.experts for layer, one in places.items() if one.experts and "expert" not in one.refused}


def apart(found: Tensor, due: Tensor) -> float:
    """Largest difference, relative to the largest value due."""
    return float((found.float() - due.float()).abs().max() / due.float().abs().max())


class Bench:
    """One model with two batches of prompts: recipients and donors."""

    def __init__(self, family: str, implementation: str, dtype: torch.dtype) -> None:
        self.model = model_of(family, dtype)
        if implementation != "eager" or len(implementations(family)) > 1:
            self.model.set_experts_implementation(implementation)
        self.places = find_places(self.model)
        self.sites = _sites(self.places)
        layers = list(self.sites)
        self.layer, self.last = layers[len(layers) // 2], layers[-1]
        self.site = self.sites[self.layer]
        self.by_hand = type(self.site.module).__name__ in EXPERTS
        ids, _ = prompts()
        self.rows, self.columns = ids.numel(), ids.shape[1]
        self.given = torch.randint(3, 90, ids.shape, generator=torch.Generator().manual_seed(11))
        with calls(self.sites) as found:
            self.base = self.run()
        self.mine: dict[int, Call] = dict(found)
        with calls(self.sites) as found:
            self.run(self.given)
        self.theirs: dict[int, Call] = dict(found)
        self.every = torch.arange(self.rows)

    def run(self, ids: Tensor | None = None, *, turned: bool = False) -> Tensor:
        """Logits of the recipients, of other prompts, or of the recipients in reverse order."""
        changes = {} if ids is None else {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        if turned:
            own, mask = prompts()
            changes = {"input_ids": own.flip(0), "attention_mask": mask.flip(0)}
            if "decoder_input_ids" in inspect.signature(self.model.forward).parameters:
                changes["decoder_input_ids"] = own.flip(0).clamp(min=1)
        return forward(self.model, **changes)[1]

    def edited(self, writes: list[Write]) -> Tensor:
        """Logits with writes."""
        with torch.inference_mode(), writing(self.places, writes):
            return self.run()

    def kinds(self, layer: int) -> list[str]:
        """Kinds of plain values that a layer has."""
        there = {"head": "heads", "residual": "decoder", "moe": "block"}
        one = self.places[layer]
        return [kind for kind in KINDS if kind not in one.refused and getattr(one, there.get(kind, kind)) is not None]

    def chosen(self, layer: int, slot: int = 0) -> Tensor:
        """(rows,) experts: the recipient's own choice in even rows, the donor's in odd ones."""
        own, given = self.mine[layer].ids[:, slot], self.theirs[layer].ids[:, slot]
        index = torch.where(self.every % 2 == 0, own, given)
        return torch.where(index < self.sites[layer].experts, index, -1)

    def unchosen(self, layer: int) -> Tensor:
        """(rows,) an expert that the row did not choose."""
        hit = torch.zeros(self.rows, self.sites[layer].experts + 8, dtype=torch.bool)
        hit.scatter_(1, self.mine[layer].ids, True)
        return hit[:, : self.sites[layer].experts].int().argmin(dim=1)

    def third(self, index: Tensor, part: int, parts: int = 3) -> Tensor:
        """The index in every third row, -1 in the others."""
        return torch.where(self.every % parts == part, index, -1)


def measure(family: str, implementation: str, dtype: torch.dtype, *, brief: bool = False) -> Exact:
    """All measurements of one configuration; `brief` leaves out those with no bar in bfloat16."""
    bench = Bench(family, implementation, dtype)
    with torch.inference_mode():
        swaps = _swaps(bench) if bench.by_hand else (NOTHING, NOTHING)
        return Exact(
            _reading(bench), _own(bench), *_unchosen(bench), _partner(bench), *_parts(bench), *swaps,
            _sets(bench) if bench.by_hand and not brief else NOTHING,
            NOTHING if brief else _rows(bench), NOTHING if brief else _elsewhere(bench),
        )  # fmt: skip


def _reading(bench: Bench) -> bool:
    """Every kind of site of every layer, twice: what a careless reader left behind would be seen the second time."""
    wanted = [(layer, kind) for layer in bench.sites for kind in ("expert", "router", *bench.kinds(layer))]
    with reading(bench.places, wanted):
        return torch.equal(bench.run(), bench.base) and torch.equal(bench.run(), bench.base)


def _own(bench: Bench) -> bool:
    """Everything at once: the five ways of writing experts in turn by rows, and all other kinds of the layer."""
    layer, same = bench.layer, []
    with reading(bench.places, [(layer, kind) for kind in ("expert", *bench.kinds(layer))]) as seen:
        bench.run()
    choice, one = seen.choice(layer), torch.ones(bench.rows, 1, dtype=bench.model.dtype)
    for slot in range(choice.ids.shape[1]):
        experts = torch.where(choice.ids[:, slot] < bench.site.experts, choice.ids[:, slot], -1)
        writes = [Write(layer, "router", bench.every, value=choice.weights, ids=choice.ids)]
        for part, how in enumerate((*SWAPS, "scale", "add")):
            index = bench.third(experts, part, 5)
            fixed = {"scale": one, "add": torch.zeros_like(choice.hidden)}
            value = fixed[how] if how in fixed else seen.value(layer, "expert", index, bench.every, how)
            writes.append(Write(layer, "expert", index, how, value))
        for kind in bench.kinds(layer):
            index = (bench.every + slot) % (bench.places[layer].heads.count if kind == "head" else 1)
            own = seen.value(layer, kind, index, bench.every)
            fixed = {"replace": own, "scale": one, "add": torch.zeros_like(own)}
            for part, how in enumerate(fixed):
                writes.append(Write(layer, kind, bench.third(index, part), how, fixed[how]))
        same.append(torch.equal(bench.edited(writes), bench.base))
    return all(same)


def _unchosen(bench: Bench) -> tuple[bool, bool]:
    layer, index = bench.layer, bench.unchosen(bench.layer)
    zero = torch.zeros_like(bench.mine[layer].hidden)
    values = {"replace": zero, "output": bench.theirs[layer].hidden, "scale": torch.full((bench.rows, 1), 3.0)}
    writes = [
        Write(layer, "expert", bench.third(index, part), how, value) for part, (how, value) in enumerate(values.items())
    ]
    nothing = torch.equal(bench.edited(writes), bench.base)
    value = torch.randn(zero.shape, generator=torch.Generator().manual_seed(3)).to(zero.dtype)
    # Hooks that come later see what earlier ones made of the output.
    with writing(bench.places, [Write(layer, "expert", index, "replace", value)]), calls(bench.sites) as found:
        bench.run()
    due = bench.mine[layer].output + value.to(bench.mine[layer].output.dtype)
    return nothing, torch.equal(found[layer].output, due)


def _partner(bench: Bench) -> bool:
    """Each row takes what the other element has in the same column."""
    layer, index = bench.layer, bench.chosen(bench.layer)
    partner = (bench.every + bench.columns) % bench.rows
    with reading(bench.places, [(layer, "expert")]) as seen:
        bench.run()
    live, given = [], []
    for part, how in enumerate(SWAPS):
        mine = bench.third(index, part)
        live.append(Write(layer, "expert", mine, how, partner=partner))
        given.append(Write(layer, "expert", mine, how, seen.value(layer, "expert", mine, partner, how)))
    one, other = bench.edited(live), bench.edited(given)
    return torch.equal(one, other) and not torch.equal(one, bench.base)


def _parts(bench: Bench) -> tuple[float, float]:
    """Contributions against the raw weights, and their sum against the output of the experts."""
    layer, call = bench.layer, bench.mine[bench.layer]
    with reading(bench.places, [(layer, "expert")]) as seen:
        bench.run()
    total, worst, largest = torch.zeros(call.output.shape), 0.0, 0.0
    for expert in range(bench.site.experts):
        index = torch.full((bench.rows,), expert)
        value = seen.value(layer, "expert", index, bench.every)
        total += value.float()
        if bench.by_hand:
            due = contributions(bench.site, call, index).float()
            worst = max(worst, float((value.float() - due).abs().max()))
            largest = max(largest, float(due.abs().max()))
    # LongCat: experts that hand their input on have weights too.
    absent = torch.where(call.ids >= bench.site.experts, call.weights, 0).sum(1, keepdim=True)
    total += absent.float() * call.hidden.float()
    return worst / largest if bench.by_hand else NOTHING, apart(total, call.output)


def _swaps(bench: Bench) -> tuple[float, float]:
    """The three swaps in turn by rows, against a layer patched by hand: within the layer, and in the logits."""
    layer, site, index = bench.layer, bench.site, bench.chosen(bench.layer)
    mine, theirs = bench.mine[layer], bench.theirs[layer]
    w, w_given = weights_of(mine, index), weights_of(theirs, index)
    y, y_given = outputs(site, mine.hidden, index), outputs(site, theirs.hidden, index)
    value = torch.where((bench.every % 3 == 1)[:, None], w * y_given, w_given * y)
    value = torch.where((bench.every % 3 == 0)[:, None], w_given * y_given, value)
    due = layer_output(site, mine, [(index, value)])
    with calls(bench.sites, {layer: lambda call: due}):
        patched = bench.run()
    with reading(bench.places, [(layer, "expert")]) as seen:
        bench.run(bench.given)
    writes = []
    for part, how in enumerate(SWAPS):
        where = bench.third(index, part)
        writes.append(Write(layer, "expert", where, how, seen.value(layer, "expert", where, bench.every, how)))
    with writing(bench.places, writes), calls(bench.sites) as found:
        got = bench.run()
    return apart(found[layer].output, due), apart(got, patched)


def _sets(bench: Bench) -> float:
    """Two experts of one layer, where it chooses two, and one of the last layer, each replaced by the donor's."""
    layers = [(bench.layer, slot) for slot in range(min(2, bench.mine[bench.layer].ids.shape[1]))]
    layers += [(bench.last, 0)] if bench.last != bench.layer else []
    taken: dict[int, list[Tensor]] = {}
    for layer, slot in layers:
        index = bench.chosen(layer, slot)
        for other in taken.get(layer, []):
            index = torch.where(index == other, -1, index)
        taken.setdefault(layer, []).append(index)

    def patch(layer: int, call: Call) -> Tensor:
        site = bench.sites[layer]
        given = [(index, contributions(site, bench.theirs[layer], index)) for index in taken[layer]]
        return layer_output(site, call, given)

    with calls(bench.sites, {layer: lambda call, layer=layer: patch(layer, call) for layer in taken}):  # type: ignore[misc]
        patched = bench.run()
    with reading(bench.places, [(layer, "expert") for layer in taken]) as seen:
        bench.run(bench.given)
    writes = [
        Write(layer, "expert", index, value=seen.value(layer, "expert", index, bench.every))
        for layer, indices in taken.items()
        for index in indices
    ]
    return apart(bench.edited(writes), patched)


def _rows(bench: Bench) -> float:
    """Zero an expert in the first element and add noise to the stream (or to an expert) in the second: at once, and
    one at a time."""
    layer = bench.layer
    zero = torch.zeros_like(bench.mine[layer].hidden)
    noise = torch.randn(zero.shape, generator=torch.Generator().manual_seed(4)).to(zero.dtype)
    head = torch.where(bench.every < bench.columns, bench.chosen(layer), -1)
    tail = torch.where(bench.every < bench.columns, -1, 0)
    kind = "residual" if "residual" in bench.kinds(layer) else "expert"
    first, second = Write(layer, "expert", head, "replace", zero), Write(layer, kind, tail, "add", noise)
    both, one, other = bench.edited([first, second]), bench.edited([first]), bench.edited([second])
    return apart(both, torch.stack([one[0], other[1]]))


def _elsewhere(bench: Bench) -> float:
    layer, index = bench.layer, bench.chosen(bench.layer)
    turned = (bench.every + bench.columns) % bench.rows
    with reading(bench.places, [(layer, "expert")]) as seen:
        bench.run(turned=True)
    value = seen.value(layer, "expert", index, turned)
    return apart(bench.edited([Write(layer, "expert", index, "replace", value)]), bench.base)


FIGURES = [one.name for one in fields(Exact) if one.type is float]
"""Those of the measurements that are figures; python -m tests.editing.table prints what they come to."""
