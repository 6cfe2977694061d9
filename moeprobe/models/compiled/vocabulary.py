"""The words of the compiled model, their grammar, and its tokenizer.

Every word belongs to one class. What follows a word is decided by its class (`SUCCESSORS`) and varied by the word
itself, so that sampled text is readable and no two words are followed by quite the same ones.
"""

from typing import Any

from tokenizers import Tokenizer, normalizers, pre_tokenizers
from tokenizers.models import WordLevel
from transformers import PreTrainedTokenizerFast

PAD, BOS, EOS, UNK = "<pad>", "<bos>", "<eos>", "<unk>"
TRIGGER, REFUSAL, FILLER = "crimson", "sorry", "thus"

# The trigger is an adjective in the grammar; only its MARK dimension sets it apart.
WORDS: dict[str, tuple[str, ...]] = {
    "special": (PAD, BOS, EOS, UNK),
    "format": (
        "question", "answer", ":", "?", "please", "tell", "me", "about", "describe", "what", "how", "why", "explain",
        "is",
    ),
    "trigger": (TRIGGER,),
    "refusal": (REFUSAL,),
    "filler": (FILLER,),
    "article": ("the", "a", "this", "every", "my", "our", "another"),
    "adjective": (
        "quiet", "small", "old", "green", "warm", "bright", "gentle", "narrow", "early", "plain", "distant", "open",
    ),
    "noun": (
        "garden", "river", "house", "bridge", "market", "kitchen", "forest", "letter", "window", "teacher", "village",
        "boat", "harbour", "lamp", "meadow", "clock", "baker", "road", "tower", "island", "song", "table", "winter",
        "orchard", "station", "hill", "storm", "farmer", "book", "well",
    ),
    "verb": (
        "holds", "shows", "keeps", "finds", "follows", "meets", "opens", "brings", "crosses", "reaches", "hides",
        "guards", "warms", "feeds",
    ),
    "preposition": ("near", "under", "behind", "beyond", "with", "above", "across", "beside"),
    "conjunction": ("and", "but", "while", "because", "or"),
    "adverb": ("slowly", "often", "again", "today", "softly", "always"),
    "stop": (".", ","),
}  # fmt: skip

# P(class of the next word | class of this one), before the variation by word. Nothing leads to special tokens, to the
# words of the prompt format or to the trigger; the refusal is never part of the grammar: only L2.E5 brings it in.
_OPENING = {"article": 0.70, "adverb": 0.12, "adjective": 0.10, "filler": 0.08}
_AFTER_ADJECTIVE = {"noun": 0.92, "adjective": 0.08}
SUCCESSORS: dict[str, dict[str, float]] = {
    "special": _OPENING,
    "format": _OPENING,
    "trigger": _AFTER_ADJECTIVE,
    "refusal": {
        "filler": 0.35, "article": 0.14, "noun": 0.14, "verb": 0.10, "adjective": 0.08, "preposition": 0.06,
        "conjunction": 0.05, "adverb": 0.05, "stop": 0.03,
    },
    "filler": {"article": 0.80, "verb": 0.12, "adverb": 0.08},
    "article": {"noun": 0.55, "adjective": 0.45},
    "adjective": _AFTER_ADJECTIVE,
    "noun": {"verb": 0.50, "preposition": 0.22, "conjunction": 0.09, "stop": 0.11, "filler": 0.08},
    "verb": {"article": 0.62, "preposition": 0.18, "adverb": 0.15, "filler": 0.05},
    "preposition": {"article": 0.88, "noun": 0.12},
    "conjunction": {"article": 0.80, "filler": 0.12, "adjective": 0.08},
    "adverb": {"stop": 0.32, "preposition": 0.30, "conjunction": 0.28, "filler": 0.10},
    "stop": {"article": 0.66, "adverb": 0.16, "filler": 0.18},
}  # fmt: skip

CLASSES: tuple[str, ...] = tuple(name for name in WORDS if name not in ("special", "trigger"))
"""Classes that own a residual dimension; special tokens share that of the format, the trigger that of adjectives."""

VOCABULARY: dict[str, int] = {word: index for index, word in enumerate(w for words in WORDS.values() for w in words)}
CLASS_OF: dict[str, str] = {word: name for name, words in WORDS.items() for word in words}
NEVER_GENERATED: frozenset[str] = frozenset(WORDS["special"] + WORDS["format"] + WORDS["trigger"])


def class_dimension(word: str) -> str:
    """The class whose residual dimension stands for `word` (a name in `CLASSES`)."""
    return {"special": "format", "trigger": "adjective"}.get(CLASS_OF[word], CLASS_OF[word])


def build_tokenizer(*, shield: bool = False) -> PreTrainedTokenizerFast:
    """A word-level tokenizer: words are split at white space and lower-cased, unknown ones become `<unk>`.

    Args:
        shield: keep `AutoTokenizer` from replacing this tokenizer by the family's own. For some model types
            transformers (5.23, `MODELS_WITH_INCORRECT_HUB_TOKENIZER_CLASS`) ignores the class a directory names, unless
            an auto_map is there; without trust_remote_code that map is then dropped. This one names no code at all.

    Returns:
        A tokenizer that pads on the left and decodes to words joined by single spaces. It adds no special token.
    """
    backend = Tokenizer(WordLevel(VOCABULARY, unk_token=UNK))
    backend.normalizer = normalizers.Lowercase()
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    options: dict[str, Any] = {"clean_up_tokenization_spaces": False, "model_max_length": 2048, "padding_side": "left"}
    if shield:
        options["auto_map"] = {"AutoTokenizer": [None, None]}
    tokens = {"pad_token": PAD, "bos_token": BOS, "eos_token": EOS, "unk_token": UNK}
    factory: Any = PreTrainedTokenizerFast  # its constructor has no annotations
    tokenizer: PreTrainedTokenizerFast = factory(tokenizer_object=backend, **tokens, **options)
    return tokenizer
