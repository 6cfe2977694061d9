"""One tokenizer of each kind, built here from a few lines of text, and for each the bytes that a token stands for.

The ranges that the tests expect are worked out from those bytes, by UTF-8 alone: nothing of `moeprobe.chat.pieces` is
used, and no decoding of a library.
"""

import re
from collections.abc import Callable
from functools import cache

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

CORPUS = [
    "The cat can't sit on the mat, can it? Yes! It's 12,345 metres away.",
    "Ça m'est égal — naïve café, Übergröße; I don't know.",
    "Привет, мир! שלום עולם مرحبا بالعالم",
    "日本語の文章です。中文也可以。한국어",
    "👩‍👩‍👧 😀🏳️‍🌈 👍🏽 e\u0301 a\u0308 \u0928\u093f",
    "def f(x):\n\treturn x  # tabs\r\n",
] * 4
SPECIAL = "<|end|>"


@cache
def byte_level() -> PreTrainedTokenizerFast:
    """Byte-level BPE, as GPT-2's, Qwen's and gpt-oss's."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    made.train_from_iterator(
        CORPUS, trainers.BpeTrainer(vocab_size=420, initial_alphabet=alphabet, show_progress=False)
    )
    return _wrapped(made)


@cache
def sentence_piece() -> PreTrainedTokenizerFast:
    """SentencePiece's Unigram with byte fallback and "\u2581" for a space, decoded as Llama's and Mixtral's."""
    bytes_ = [(f"<0x{value:02X}>", -20.0) for value in range(256)]
    words = sorted({word for line in CORPUS for word in re.findall(r"[A-Za-z\u0400-\u04ff\u05d0-\u05ea]+", line)})
    pieces = [(f"\u2581{word}", -6.0) for word in words] + [(word, -7.0) for word in words]
    letters = [(letter, -9.0) for letter in sorted({*"".join(words), *"日本語é,.!? \u2581"})]
    made = Tokenizer(
        models.Unigram([("<unk>", 0.0), *bytes_, *dict([*letters, *pieces]).items()], 0, byte_fallback=True)
    )
    made.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])
    made.decoder = decoders.Sequence(
        [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return _wrapped(made)


@cache
def word_piece() -> PreTrainedTokenizerFast:
    """WordPiece as BERT's: lower case, accents stripped, "##" before what goes on with a word."""
    made = Tokenizer(models.WordPiece(unk_token="[UNK]"))  # noqa: S106 - no password
    made.normalizer = normalizers.BertNormalizer(lowercase=True, strip_accents=True)
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.decoder = decoders.WordPiece(prefix="##", cleanup=True)
    made.train_from_iterator(
        CORPUS, trainers.WordPieceTrainer(vocab_size=400, special_tokens=["[UNK]"], show_progress=False)
    )
    return _wrapped(made)


def _wrapped(made: Tokenizer) -> PreTrainedTokenizerFast:
    made.add_special_tokens([AddedToken(SPECIAL, normalized=False)])
    return PreTrainedTokenizerFast(tokenizer_object=made, clean_up_tokenization_spaces=False)


def byte_level_bytes(tokens: list[str]) -> list[bytes]:
    """GPT-2's alphabet: 188 bytes stand for themselves, the others for U+0100 onwards in order."""
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    rest = [value for value in range(256) if value not in plain]
    table = {chr(value): value for value in plain} | {chr(0x100 + place): value for place, value in enumerate(rest)}
    return [bytes(table[letter] for letter in token) for token in tokens]


def sentence_piece_bytes(tokens: list[str]) -> list[bytes]:
    """A byte token is its byte; else the text with spaces, of which one at the start of all is left out.

    The decoder strips it from the joined text, so a token that is spelled with a real space (which no text is cut into,
    but a model may choose) loses it as well as one with the mark.
    """
    found = [
        bytes([int(token[3:5], 16)])
        if re.fullmatch("<0x[0-9A-F]{2}>", token)
        else token.replace("\u2581", " ").encode()
        for token in tokens
    ]
    marked = bool(tokens) and tokens[0][0] in "\u2581 "
    return [found[0].removeprefix(b" "), *found[1:]] if marked else found


def word_piece_bytes(tokens: list[str]) -> list[bytes]:
    """A word begins with a space, but not the first and not a lone mark of punctuation."""
    found = []
    for place, token in enumerate(tokens):
        if place == 0:
            found.append(token)
        elif token.startswith("##"):
            found.append(token[2:])
        else:
            found.append(token if token in (".", "?", "!", ",") else f" {token}")
    return [one.encode() for one in found]


KINDS: dict[str, tuple[Callable[[], PreTrainedTokenizerFast], Callable[[list[str]], list[bytes]]]] = {
    "byte-level BPE": (byte_level, byte_level_bytes),
    "SentencePiece": (sentence_piece, sentence_piece_bytes),
    "WordPiece": (word_piece, word_piece_bytes),
}


def covered(pieces: list[bytes]) -> tuple[str, list[set[int]]]:
    """The text of some tokens' bytes, and the characters each token has a byte of.

    What is no UTF-8 becomes U+FFFD, one for each maximal subpart (Unicode 15, section 3.9, table 3-8).
    """
    whole = b"".join(pieces)
    owner = [token for token, piece in enumerate(pieces) for _ in piece]
    text, characters = "", [set[int]() for _ in pieces]
    place = 0
    while place < len(whole):
        size, letter = _character(whole[place : place + 4])
        for byte in range(place, place + size):
            characters[owner[byte]].add(len(text))
        text += letter
        place += size
    return text, characters


def _character(data: bytes) -> tuple[int, str]:
    """How many bytes the first character takes, and what it is."""
    for size in range(1, len(data) + 1):
        try:
            return size, data[:size].decode("utf-8")
        except UnicodeDecodeError as problem:
            if problem.reason != "unexpected end of data":
                return max(1, problem.end - problem.start), "\ufffd"
    return len(data), "\ufffd"
