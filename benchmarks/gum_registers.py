"""How five built-in registers fare on the genres of the GUM corpus (Zeldes 2017), text they were not made on.

    git clone https://github.com/amir-zeldes/gum
    python benchmarks/gum_registers.py gum --split dev test

GUM's texts keep their own licences and are not part of this repository. Each document is cut into passages of about
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

POSITIVE = {"instruction": "whow", "narrative": "fiction", "technical": "academic"}
# Genres that hold much of a register under another name, so that they can be neither right nor wrong for it.
UNDECIDED = {
    "instruction": {"voyage"},
    "narrative": {"bio", "conversation", "podcast", "vlog", "letter", "news", "court", "speech", "interview", "essay"},
    "technical": {"textbook", "court"},
}
ALSO = ("hedging", "second-person-address")
WORDS = 150
RESAMPLES = 2000


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


def balanced(pieces: Sequence[Piece], called: Sequence[bool], name: str) -> dict[str, object]:
    """Balanced accuracy over passages, with a 95 % interval from resampling documents (seed 0)."""
    counts: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0, 0.0, 0.0])  # hits, positives, passes, negatives
    for piece, yes in zip(pieces, called, strict=True):
        if piece.genre == POSITIVE[name]:
            counts[piece.document][0] += yes
            counts[piece.document][1] += 1
        elif piece.genre not in UNDECIDED[name]:
            counts[piece.document][2] += not yes
            counts[piece.document][3] += 1
    table = np.array([counts[document] for document in sorted(counts)])  # (documents, 4)
    draws = np.random.default_rng(0).integers(0, len(table), (RESAMPLES, len(table)))
    sums = table[draws].sum(axis=1)  # (resamples, 4)
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
    parser.add_argument("folder", type=Path, help="a checkout of github.com/amir-zeldes/gum")
    parser.add_argument("--split", nargs="+", default=["dev", "test"], choices=["train", "dev", "test", "test2"])
    parser.add_argument("--wrong", metavar="REGISTER", help="show the passages that this register got wrong")
    given = parser.parse_args()
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
        results[name] = (balanced(pieces, called, name) if name in POSITIVE else {}) | {"called": shares}
        for piece, yes in zip(pieces, called, strict=True) if given.wrong == name else ():
            if yes != (piece.genre == POSITIVE[name]) and piece.genre not in UNDECIDED[name]:
                print("-----", piece.document, "called" if yes else "missed", "\n", piece.text[:1200])
    address = load_probe("second-person-address")
    told = [(bool(address.read(Passage(text)).spans), imperative) for text, imperative in typed]
    results["imperative sentences marked by second-person-address"] = (
        f"{sum(yes for yes, imperative in told if imperative)}/{sum(imperative for _, imperative in told)}"
    )
    print(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
