"""How five built-in registers fare on the genres of the GUM corpus (Zeldes 2017), text they were not made on.

    git clone https://github.com/amir-zeldes/gum
    python benchmarks/gum_registers.py gum --split dev test
    python benchmarks/gum_registers.py brown --split even     # the Brown corpus as NLTK gives it: has a cats.txt

The texts keep their own licences and are not part of this repository. Each document is cut into passages of about
150 words. A genre stands for a register: whow (wikiHow) for instruction, fiction for narrative, academic for
technical. The label is rough: a passage of a novel may describe, and one of a how-to guide may explain. So the table
of shares by genre says more than the one figure. GUM also says of each sentence whether it is an imperative; that
checks how second-person-address finds them.
"""

import argparse
import json
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from moeprobe.probes import Passage, load_probe

LEARNED = (  # the fields of Brown's category J, by the number of their last document
    (12, "natural sciences"),
    (17, "medicine"),
    (21, "mathematics"),
    (35, "social sciences"),
    (50, "law, politics, education"),
    (68, "humanities"),
    (80, "technology"),
)
POSITIVE = {
    "instruction": {"whow"},
    "narrative": {"fiction", "adventure", "mystery", "romance", "science_fiction"},
    "technical": {"academic", *(f"learned, {field}" for _, field in LEARNED)},
}
# Genres that hold much of a register under another name, so that they can be neither right nor wrong for it.
UNDECIDED = {
    "instruction": {"voyage"},
    "narrative": {
        *("bio", "conversation", "podcast", "vlog", "letter", "news", "court", "speech", "interview", "essay"),
        *("humor", "belles_lettres", "lore"),
    },
    "technical": {"textbook", "court", "government"},
}
ALSO = ("hedging", "second-person-address")
SPLITS = ("train", "dev", "test", "test2", "odd", "even")  # GUM's, and the halves of Brown
WORDS = 150
RESAMPLES = 2000
BROWN_PASSAGES = 3  # of each document, from its start; documents have 2,000 words


@dataclass(frozen=True)
class Piece:
    """A passage of a document, with the document's genre and GUM's own split."""

    document: str
    genre: str
    split: str
    text: str


def read_splits(path: Path) -> dict[str, str]:
    """Document -> train, dev, test or test2, from GUM's splits.md."""
    splits, current = {}, ""
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("## "):
            current = line[3:].strip()
        elif line.strip().startswith("* "):
            splits[line.strip()[2:].strip()] = current
    return splits


def read_sentences(path: Path) -> list[tuple[str, str, bool]]:
    """(text, GUM's sentence type, whether a paragraph, heading or list item begins with it)."""
    found, kind, opens = [], "", False
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("# newpar"):
            opens = True
        elif line.startswith("# s_type = "):
            kind = line[11:]
        elif line.startswith("# text = "):
            found.append((line[9:], kind, opens))
            kind, opens = "", False
    return found


def cut(sentences: Sequence[tuple[str, str, bool]]) -> Iterator[str]:
    """Passages of WORDS words and more, at the ends of sentences; a short rest joins the last one."""
    passages: list[list[tuple[str, str, bool]]] = [[]]
    for sentence in sentences:
        if sum(len(text.split()) for text, _, _ in passages[-1]) >= WORDS:
            passages.append([])
        passages[-1].append(sentence)
    if len(passages) > 1 and sum(len(text.split()) for text, _, _ in passages[-1]) < WORDS // 2:
        rest = passages.pop()
        passages[-1] += rest
    for passage in passages:
        yield "".join(("\n\n" if opens else " ") + text for text, _, opens in passage).strip()


def load(folder: Path, splits: Sequence[str]) -> tuple[list[Piece], list[tuple[str, bool]]]:
    """Passages, and sentences with whether GUM calls them imperative, of the documents in `splits`.

    Documents whose words are blanked (reddit, by licence) are left out.
    """
    where = read_splits(folder / "splits.md")
    pieces: list[Piece] = []
    typed: list[tuple[str, bool]] = []
    for path in sorted((folder / "dep").glob("*.conllu")):
        split = where.get(path.stem, "")
        sentences = read_sentences(path)
        if split not in splits or any(re.fullmatch(r"[_\W]{12,}", text) for text, _, _ in sentences):
            continue
        genre = path.stem.split("_")[1]
        pieces += [Piece(path.stem, genre, split, text) for text in cut(sentences)]
        typed += [(text, kind == "imp") for text, kind, _ in sentences]
    if not pieces:
        raise SystemExit(f"{folder} holds no GUM documents of the splits {', '.join(splits)} under dep/.")
    return pieces, typed


def load_brown(folder: Path, splits: Sequence[str]) -> list[Piece]:
    """The first passages of each odd or even document of the Brown corpus, whose words stand as "word/tag"."""
    pieces = []
    for line in (folder / "cats.txt").read_text(encoding="ascii").splitlines():
        document, genre = line.split()[:2]
        number = int(document[2:])
        split = "odd" if number % 2 else "even"
        if split not in splits:
            continue
        if genre == "learned":
            genre = "learned, " + next(field for last, field in LEARNED if number <= last)
        sentences = []
        opens = True
        for written in (folder / document).read_text(encoding="ascii").splitlines():
            words = [token.rpartition("/")[0] for token in written.split()]
            if not words:
                opens = True
                continue
            text = " ".join(words).replace("`` ", '"').replace(" ''", '"')
            sentences.append((re.sub(r" ([.,;:!?)])", r"\1", text.replace(";;", ";").replace("( ", "(")), "", opens))
            opens = False
        pieces += [Piece(document, genre, split, text) for text in list(cut(sentences))[:BROWN_PASSAGES]]
    return pieces


def balanced(pieces: Sequence[Piece], called: Sequence[bool], name: str) -> dict[str, object]:
    """Balanced accuracy over passages, with a 95 % interval from resampling documents (seed 0)."""
    counts: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0, 0.0, 0.0])  # hits, positives, passes, negatives
    for piece, yes in zip(pieces, called, strict=True):
        if piece.genre in POSITIVE[name]:
            counts[piece.document][0] += yes
            counts[piece.document][1] += 1
        elif piece.genre not in UNDECIDED[name]:
            counts[piece.document][2] += not yes
            counts[piece.document][3] += 1
    table = np.array([counts[document] for document in sorted(counts)])  # (documents, 4)
    draws = np.random.default_rng(0).integers(0, len(table), (RESAMPLES, len(table)))
    sums = table[draws].sum(axis=1)  # (resamples, 4)
    with np.errstate(invalid="ignore"):  # a resample without one kind has no balanced accuracy
        resampled = (sums[:, 0] / sums[:, 1] + sums[:, 2] / sums[:, 3]) / 2
    hits, positives, passes, negatives = table.sum(axis=0)
    low, high = np.nanquantile(resampled, [0.025, 0.975])
    return {
        "positive": int(positives),
        "negative": int(negatives),
        "recall": round(hits / positives, 3),
        "specificity": round(passes / negatives, 3),
        "balanced_accuracy": round((hits / positives + passes / negatives) / 2, 3),
        "ci": [round(float(low), 3), round(float(high), 3)],
    }


def main() -> None:
    """Print the table as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="a checkout of GUM, or the Brown corpus")
    parser.add_argument("--split", nargs="+", default=["dev", "test"], choices=SPLITS)
    parser.add_argument("--wrong", metavar="REGISTER", help="show the passages that this register got wrong")
    given = parser.parse_args()
    if (given.folder / "cats.txt").exists():
        pieces, typed = load_brown(given.folder, given.split), []
    else:
        pieces, typed = load(given.folder, given.split)
    genres = sorted({piece.genre for piece in pieces})
    results: dict[str, object] = {"splits": given.split, "passages": len(pieces)}
    for name in (*POSITIVE, *ALSO):
        probe = load_probe(name)
        called = [(probe.read(Passage(piece.text)).score or 0.0) >= 0.5 for piece in pieces]
        shares = {}
        for genre in genres:
            mine = [yes for piece, yes in zip(pieces, called, strict=True) if piece.genre == genre]
            shares[genre] = f"{sum(mine)}/{len(mine)}"
        judged = POSITIVE.get(name, set()) & set(genres)
        results[name] = (balanced(pieces, called, name) if judged else {}) | {"called": shares}
        for piece, yes in zip(pieces, called, strict=True) if given.wrong == name else ():
            if yes != (piece.genre in POSITIVE[name]) and piece.genre not in UNDECIDED[name]:
                print("-----", piece.document, "called" if yes else "missed", "\n", piece.text[:1200])
    address = load_probe("second-person-address")
    told = [bool(address.read(Passage(text)).spans) for text, imperative in typed if imperative]
    if told:
        results["imperative sentences marked by second-person-address"] = f"{sum(told)}/{len(told)}"
    print(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
