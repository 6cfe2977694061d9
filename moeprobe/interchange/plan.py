"""How an interchange run is done; all of it is written into the findings."""

from dataclasses import dataclass, field

from moeprobe.errors import InterchangeError
from moeprobe.interchange.arms import ARMS, SWAPS, check_arms
from moeprobe.judging.judge import Criteria
from moeprobe.pairs.alignment import Alignment
from moeprobe.pairs.metrics import ControlNLL, Metric


@dataclass(frozen=True)
class Plan:
    """One interchange run.

    Attributes:
        metric: what is measured of each run.
        alignment: which positions stand for which.
        swap: "contribution", "output" or "routing".
        controls: donors beside the pair's own prompt: "placebo" and "random" (a verdict rests on them), "noise".
        knockouts: "bar", "mean", "resample" beside "zero", which is always run; shown beside the swaps, never part of a
            verdict.
        null: comparison sites for each tested one. With 19 and more a rank can reach p = .05 by itself.
        bootstrap: draws of the intervals over pairs.
        seed: of donors, comparison sites, resamples and sign flips.
        minimum_effect: percent of the gap below which an effect gets no causal word, however certain it is. The gap
            holds everything that differs between the prompts of a pair, their topic too, so even a switch of the
            behaviour explains a part of it only: 1 to 8 % in [HAR]'s tables. 2 % is the guard of STATISTICS 8.
        confirm: choose so many sites on half of the pairs and judge them on the other half; 0: judge all on all pairs.
        members: also test each member of a set alone, and say how far the set is the sum of them.
        batch_size: runs per forward.
    """

    metric: Metric = field(default_factory=ControlNLL)
    alignment: Alignment = field(default_factory=Alignment)
    swap: str = "contribution"
    controls: tuple[str, ...] = ("placebo", "random")
    knockouts: tuple[str, ...] = ()
    null: int = 19
    bootstrap: int = 10_000
    seed: int = 0
    minimum_effect: float = 2.0
    confirm: int = 0
    members: bool = False
    batch_size: int = 16

    def __post_init__(self) -> None:
        if min(self.null, self.bootstrap, self.batch_size) < 1 or self.confirm < 0:
            raise InterchangeError("Comparison sites, bootstrap draws and batch size must each be at least 1.")
        if self.swap not in SWAPS:
            raise InterchangeError(f"There is no swap {self.swap!r}. Choose one of {', '.join(SWAPS)}.")
        if isinstance(self.metric, str) or isinstance(self.alignment, str):
            raise InterchangeError(
                'Metric and alignment are objects: Plan(metric=make_metric("refusal-log-odds", loaded), '
                'alignment=Alignment("tokens")).'
            )
        check_arms(self.arms)
        if self.seed < 0:
            raise InterchangeError(f"A seed is 0 or more, not {self.seed}.")
        if self.swap != "contribution" and "noise" in self.controls:
            raise InterchangeError(f"Noise is added to contributions; there is none for the swap {self.swap!r}.")
        self.criteria  # noqa: B018  # raises where a threshold makes no sense

    @property
    def arms(self) -> tuple[str, ...]:
        """The arms of tested sites, by name."""
        swaps = [f"{control}_{name}" for control in self.controls for name in ("necessity", "sufficiency")]
        outs = [f"knockout_{one}" for one in self.knockouts if one != "zero"]
        return ("necessity", "sufficiency", *dict.fromkeys([*swaps, "knockout", *outs]))

    @property
    def null_arms(self) -> tuple[str, ...]:
        """The arms of comparison sites: those that they are compared by."""
        shown = (arm for arm in self.arms if arm.startswith("placebo_") or arm == "knockout")
        return ("necessity", "sufficiency", *shown)

    def arms_for(self, kinds: set[str]) -> tuple[str, ...]:
        """The arms that sites of these kinds can have: a router's choice is swapped only; only experts are barred."""
        arms = [ARMS[name] for name in self.arms]
        if "router" in kinds:
            arms = [arm for arm in arms if not arm.knockout and arm.source != "noise"]
        if kinds != {"expert"}:
            arms = [arm for arm in arms if arm.source != "bar"]
        return tuple(arm.name for arm in arms)

    @property
    def criteria(self) -> Criteria:
        """What a verdict asks for."""
        return Criteria(
            minimum_effect=self.minimum_effect,
            bootstrap=self.bootstrap,
            seed=self.seed,
            placebo="placebo" in self.controls,
        )
