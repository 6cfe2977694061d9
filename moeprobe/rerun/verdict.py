"""What a rerun says: whether a run repeats, in one sentence and in numbers."""

from dataclasses import dataclass
from typing import Any

from moeprobe.rerun.repeats import Comparison, LayerMatch, ratio
from moeprobe.rerun.setting import Setting


@dataclass(frozen=True)
class Rerun:
    """The result of `moeprobe.rerun.repeating`.

    Attributes:
        trace, model: what was repeated, with what.
        setting: how today's setting compares with that of the run.
        comparison: tokens, and routing layer by layer.
        prompts: how many prompts would give the "same" ids with today's tokenizer and template, "other" ones, or
            "unknown" where the text could not be read back from the tokens.
        teacher_forced: tokens were given, not generated.
        notes: what limits the comparison.
    """

    trace: str
    model: str
    setting: Setting
    comparison: Comparison
    prompts: dict[str, int]
    teacher_forced: bool
    notes: tuple[str, ...] = ()

    @property
    def repeats(self) -> bool:
        """Same tokens, and the same experts in the same order."""
        return self.comparison.exact

    @property
    def sentence(self) -> str:
        """The verdict."""
        text = self._text()
        return f"With other weights: {text[:1].lower()}{text[1:]}" if self.setting.weights == "other" else text

    def _text(self) -> str:
        compared, total = self.comparison, self.comparison.total()
        if compared.exact:
            what = "The routing of these tokens repeats" if self.teacher_forced else "The run repeats"
            if not total.weight_difference:
                return f"{what} exactly."
            same = "experts are the same" if self.teacher_forced else "tokens and experts are the same"
            return f"{what}: {same}; gate weights differ by at most {total.weight_difference:.2g}."
        if self.teacher_forced:
            text = _routing(compared, total)
            return f"{text[:1].upper()}{text[1:]}."
        if not compared.divergences:
            return f"Tokens match; {_routing(compared, total)}."
        first = compared.divergences[0]
        count = len(compared.divergences)
        return (
            f"Tokens differ in {count} of {compared.generations} generations, first at generated token {first.token} "
            f"of generation {first.index}; before they differ, {_routing(compared, total)}."
        )

    def to_json(self) -> dict[str, Any]:
        """Everything, as JSON types."""
        compared = self.comparison
        return {
            "trace": self.trace,
            "model": self.model,
            "repeats": self.repeats,
            "sentence": self.sentence,
            "teacher_forced": self.teacher_forced,
            "weights": {"verdict": self.setting.weights, "why": self.setting.why},
            "differences": [one.to_json() for one in self.setting.differences],
            "prompts": self.prompts,
            "generations": compared.generations,
            "rows": compared.rows,
            "rows_compared": compared.compared,
            "divergences": [one.to_json() for one in compared.divergences],
            "all_layers": compared.total().to_json(),
            "layers": [layer.to_json() for layer in compared.layers.values()],
            "notes": list(self.notes),
        }


def percent(part: int, whole: int) -> str:
    """ "0.34 %"; never rounded to 0 or 100 where it is neither; "-" of nothing."""
    share = ratio(part, whole)
    if share is None:
        return "-"
    if part and share < 0.0001:
        return "below 0.01 %"
    if part < whole and share > 0.9999:
        return "above 99.99 %"
    digits = 2 if share < 0.1 else 3 if share < 0.99 else 4
    return f"{100 * share:.{digits}g} %"


def _routing(compared: Comparison, total: LayerMatch) -> str:
    if not total.flips and not total.reordered:
        return "routing is the same"
    if not total.flips:
        return f"each token has the same experts, but in another order in {percent(total.reordered, total.tokens)}"
    layers = [layer for layer in compared.layers.values() if layer.flips]
    text = (
        f"{percent(total.flips, total.tokens)} of the choices flip, in {len(layers)} of {len(compared.layers)} layers"
    )
    if total.sensitive is None or total.sensitive_flips is None:
        return text
    return (
        f"{text}, {percent(total.sensitive_flips, total.flips)} of them gate-sensitive (of all choices, "
        f"{percent(total.sensitive, total.tokens)} are)"
    )
