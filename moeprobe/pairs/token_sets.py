"""Sets of tokens that a metric reads out, given as words or as token ids."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from moeprobe.errors import InterchangeError
from moeprobe.models import LoadedModel
from moeprobe.pairs.pairs import shown


@dataclass(frozen=True)
class TokenSet:
    """Token ids and where they come from.

    Attributes:
        ids: different ids, in ascending order.
        pieces: for each id the text it stands for.
        sources: for each item that was given: what was given, and the ids it brought in.
        dropped: items that brought in none, with the reason in words; only of a default set.
    """

    ids: tuple[int, ...]
    pieces: tuple[str, ...]
    sources: tuple[tuple[str | int, tuple[int, ...]], ...]
    dropped: tuple[tuple[str, str], ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The set as a record."""
        return {
            "ids": list(self.ids),
            "pieces": list(self.pieces),
            "given": [{"item": item, "ids": list(ids)} for item, ids in self.sources],
            "dropped": [{"item": item, "reason": reason} for item, reason in self.dropped],
        }

    @property
    def words(self) -> str:
        """The pieces for a sentence."""
        first = ", ".join(shown(piece, 20) for piece in self.pieces[:8])
        return first + (f" and {len(self.pieces) - 8} more" if len(self.pieces) > 8 else "")


def vocabulary(loaded: LoadedModel) -> int:
    """How many logits the model gives: rows of its output embedding, which may be padded beyond the tokenizer."""
    # Not the shape of the weight, which quantisation packs.
    rows = getattr(loaded.model.get_output_embeddings(), "out_features", None)
    return int(rows or loaded.model.config.get_text_config().vocab_size)


def token_set(loaded: LoadedModel, items: Sequence[str | int], what: str, *, optional: bool = False) -> TokenSet:
    """The set of `items`: ids stand for themselves, a word for the first tokens of itself with and without a space
    before it. A first token that is only a space is left out: any word begins with it.

    Args:
        loaded: model and tokenizer.
        items: words or token ids.
        what: the set's name, for messages.
        optional: leave out words that the vocabulary has not (a default set), instead of refusing them.

    Raises:
        InterchangeError: no items, an id or a word outside the vocabulary, or nothing left.
    """
    if isinstance(items, str) or not items:
        raise InterchangeError(f"The {what} is empty. Give a list of words or token ids.")
    size = vocabulary(loaded)
    sources: list[tuple[str | int, tuple[int, ...]]] = []
    dropped: list[tuple[str, str]] = []
    for item in items:
        if isinstance(item, bool) or not isinstance(item, int | str):
            raise InterchangeError(f"The {what} holds words and token ids, not {type(item).__name__}.")
        if isinstance(item, int):
            if not 0 <= item < size:
                raise InterchangeError(f"Token {item} of the {what} is outside the vocabulary of {size:,} tokens.")
            sources.append((item, (item,)))
            continue
        found = _first_tokens(loaded, item, size)
        if found:
            sources.append((item, found))
        elif optional:
            dropped.append((item, "not in the vocabulary"))
        else:
            raise InterchangeError(
                f"The word {shown(item)} of the {what} is outside the vocabulary: it has no first token of its own. "
                "Give another word, or token ids."
            )
    ids = tuple(sorted({one for _, found in sources for one in found}))
    if not ids:
        raise InterchangeError(f"No word of the {what} is in this model's vocabulary. Name words or token ids.")
    pieces = tuple(str(loaded.tokenizer.decode([one])) if one < len(loaded.tokenizer) else "" for one in ids)
    return TokenSet(ids, pieces, tuple(sources), tuple(dropped))


def refuse_overlap(first: TokenSet, second: TokenSet, names: tuple[str, str]) -> None:
    """Two sets must not share a token.

    Raises:
        InterchangeError: they do; the message names tokens and items.
    """
    shared = sorted(set(first.ids) & set(second.ids))
    if not shared:
        return
    given = [
        ", ".join(shown(str(item), 30) for item, ids in one.sources if shared[0] in ids) for one in (first, second)
    ]
    piece = first.pieces[first.ids.index(shared[0])]
    raise InterchangeError(
        f"The {names[0]} and the {names[1]} share {len(shared)} tokens, first {shared[0]} ({shown(piece, 20)}), from "
        f"{given[0]} and {given[1]}. A token can speak for one side only; take words that begin differently."
    )


def _first_tokens(loaded: LoadedModel, word: str, size: int) -> tuple[int, ...]:
    """First tokens of a word as it is and with a space before it; none that is unknown, special, or only a space."""
    tokenizer, bare = loaded.tokenizer, word.strip()
    if not bare:
        return ()
    special, found = set(tokenizer.all_special_ids), []
    for text in (bare, f" {bare}"):
        ids = [int(one) for one in tokenizer(text, add_special_tokens=False)["input_ids"]]
        # An id can have no character of its own: a byte of one. That would stand for many words.
        usable = bool(ids) and ids[0] not in special and ids[0] < size
        piece = str(tokenizer.decode(ids[:1])).strip() if usable else ""
        if piece and "\ufffd" not in piece:
            found.append(ids[0])
    return tuple(dict.fromkeys(found))
