"""What a simulated world is like: its size, who is labelled how, and which confounds are switched on."""

from dataclasses import dataclass

from moeprobe.errors import StatsError

Label = str | int | float | bool | None
# A billion logits would not fit into memory anyway; the bound turns a typing error into a sentence.
MOST = 100_000
STRONGEST = 100


@dataclass(frozen=True)
class World:
    """Settings of `simulate`. The defaults are the world of docs/simulation.md, without any confound.

    Each confound has its own switch, and draws its random numbers apart from the others: switching one on changes
    nothing else. Sizes that end in `_sd` are standard deviations of a router logit.

    Attributes:
        generations, layers, experts, k: how many; `k` experts are chosen for each token.
        vocabulary, topics, width: token types (Zipf), topics that reweigh them, dimensions of the hidden state.
        mean_length, length_sd: answer tokens per generation, and the standard deviation of their logarithm.
        prompt_tokens: tokens of each prompt, the same for all samples of one prompt.
        delta: shift of a planted expert's logit where the register is at full strength; every second one gets -delta.
        planted, planted_layers: planted experts of a layer, and how many of the first layers hold them (at most all).
        token_sd, topic_sd, generation_sd, pair_sd, context_sd, bias_sd: parts of a logit: token identity, generation,
            pair, AR(1) context, the expert's bias. `topic_sd` is that of a topic's log frequencies.
        context_ar: correlation of the context from one token to the next.
        samples: generations of one prompt; consecutive ones.
        prompt_share: share of the generation effect's variance that samples of one prompt have in common.
        pairs: consecutive prompts are a pair, of one topic and with a common effect; or the pair of each generation
            (None: in no pair).
        prompts: prompt id of each generation, instead of `samples`.
        labels: label of each generation; otherwise 1 and 0 in turn, prompt by prompt. Numbers are the strength too.
        strengths: how strongly each generation speaks in the register (1: +-delta), whatever its label says.
        scores: strengths are uniform on [0, 1] and stand in `metadata.score`; the label says whether it is >= 0.5.
        bystander: with `scores`, `metadata.bystander` is a score that does nothing itself, correlated like this (on
            the normal scale) with the one that does.
        within: the register comes and goes inside each generation; no generation has a label.
        register_share, register_run: with `within`, share of tokens in the register, and mean tokens of a stretch.
        shorter_positives: at full strength generations are so many times shorter.
        position_sd, position_tokens: size of an effect on the first so many answer tokens.
        register_tokens: share of the tokens that one of two words takes over at full strength.
        shard_generations: generations of one shard.
        logits: keep the router logits, as signals "L0.logits" (rows, experts).

    Raises:
        StatsError: a setting that makes no sense, or two that exclude each other; the message names them.
    """

    generations: int = 120
    layers: int = 4
    experts: int = 256
    k: int = 8
    vocabulary: int = 1500
    topics: int = 30
    width: int = 32
    mean_length: float = 200.0
    length_sd: float = 0.5
    prompt_tokens: int = 8
    delta: float = 0.5
    planted: int = 10
    planted_layers: int = 2
    token_sd: float = 1.05
    topic_sd: float = 0.7
    generation_sd: float = 0.37
    pair_sd: float = 0.4
    context_sd: float = 0.7
    bias_sd: float = 0.85
    context_ar: float = 0.9
    samples: int = 1
    prompt_share: float = 0.8
    pairs: bool | tuple[str | None, ...] = False
    prompts: tuple[str, ...] | None = None
    labels: tuple[Label, ...] | None = None
    strengths: tuple[float, ...] | None = None
    scores: bool = False
    bystander: float | None = None
    within: bool = False
    register_share: float = 0.3
    register_run: float = 20.0
    shorter_positives: float = 1.0
    position_sd: float = 0.0
    position_tokens: int = 30
    register_tokens: float = 0.0
    shard_generations: int = 10
    logits: bool = False

    def __post_init__(self) -> None:
        for name in ("pairs", "prompts", "labels", "strengths"):
            if isinstance(getattr(self, name), list):
                object.__setattr__(self, name, tuple(getattr(self, name)))
        _check_sizes(self)
        _check_numbers(self)
        _check_who(self)

    @property
    def register_words(self) -> tuple[int, int]:
        """The two token ids that `register_tokens` over-uses: common words, so that all groups know them."""
        return min(9, self.vocabulary - 1), min(19, self.vocabulary - 1)


def _check_sizes(world: World) -> None:
    counts = ("generations", "layers", "experts", "k", "vocabulary", "topics", "width", "prompt_tokens", "samples",
              "position_tokens", "shard_generations")  # fmt: skip
    for name in counts:
        _whole(world, name, 1, 65_536 if name == "experts" else MOST)
    _whole(world, "k", 1, world.experts)
    _whole(world, "planted", 0, world.experts)
    _whole(world, "planted_layers", 0, MOST)
    if world.generations % world.samples:
        raise StatsError(f"World: {world.generations} generations are not whole prompts of {world.samples} samples.")


def _check_numbers(world: World) -> None:
    sizes = ("token_sd", "topic_sd", "generation_sd", "pair_sd", "context_sd", "bias_sd", "length_sd", "position_sd")
    for name in sizes:
        _between(world, name, 0, 100)
    for name in ("prompt_share", "register_tokens"):
        _between(world, name, 0, 1)
    _between(world, "context_ar", 0, 0.999)
    _between(world, "mean_length", 1, MOST)
    _between(world, "shorter_positives", 0.001, 1000)
    _between(world, "delta", -100, 100)
    _between(world, "register_share", 0.01, 0.99)
    # A stretch of either kind lasts one token at least.
    _between(world, "register_run", max(1.0, world.register_share / (1 - world.register_share)), MOST)
    if world.bystander is not None:
        _between(world, "bystander", -1, 1)


def _check_who(world: World) -> None:
    for name in ("prompts", "labels", "strengths", "pairs"):
        given = getattr(world, name)
        if isinstance(given, tuple) and len(given) != world.generations:
            raise StatsError(f"World: {name} has {len(given)} entries, expected one for each of the generations.")
    for first, second in (("prompts", "samples"), ("within", "scores"), ("within", "labels"), ("within", "strengths"),
                          ("scores", "labels"), ("scores", "strengths")):  # fmt: skip
        if _given(world, first) and _given(world, second):
            raise StatsError(f"World: {first} and {second} exclude each other. Give one of them.")
    if world.within and (world.pairs is not False or world.shorter_positives != 1):
        raise StatsError("World: with within no generation is positive, so pairs and shorter_positives mean nothing.")
    if world.bystander is not None and not world.scores:
        raise StatsError("World: bystander needs scores=True: it is the score beside the one that acts.")
    if world.strengths is None:
        for label in world.labels or ():
            if isinstance(label, str):
                raise StatsError(f"World: the label {label!r} is no number, so strengths must say what it means.")
    numbers = world.strengths if world.strengths is not None else world.labels or ()
    for number in numbers:
        if not isinstance(number, str | None) and not abs(number) <= STRONGEST:
            raise StatsError(f"World: a strength of {number!r}, expected a number from -{STRONGEST} to {STRONGEST}.")


def _given(world: World, name: str) -> bool:
    value = getattr(world, name)
    return value > 1 if name == "samples" else value is not None and value is not False


def _whole(world: World, name: str, low: int, high: int) -> None:
    value = getattr(world, name)
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise StatsError(f"World: {name} is {value!r}, expected a whole number from {low} to {high}.")


def _between(world: World, name: str, low: float, high: float) -> None:
    value = getattr(world, name)
    if not isinstance(value, int | float) or not low <= value <= high:
        raise StatsError(f"World: {name} is {value!r}, expected a number from {low:g} to {high:g}.")
