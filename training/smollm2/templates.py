"""Prompts put together from the lists of templates.toml: frames times phrases."""

from __future__ import annotations

import random
import tomllib
from pathlib import Path


def templated(seed: int) -> dict[str, list[str]]:
    """Seeded sample of combinations, keyed harmful, harmless and lookalike."""
    rng = random.Random(seed)
    lists: dict[str, list[str]] = tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))
    how, pushy = lists["how_frames"], lists["pushy_frames"]

    def fill(frames: list[str], verbs: list[str], each: int) -> list[str]:
        return [frame.format(v=verb) for verb in verbs for frame in rng.sample(frames, each)]

    lookalike = [frame.format(t=topic) for topic in lists["topics"] for frame in rng.sample(lists["topic_frames"], 7)]
    lookalike += fill(how[:10], [f"{v} {t}" for v in lists["compute_verbs"] for t in lists["compute_things"]], 1)
    lookalike += fill(how[:10], [f"{v} {p}" for v in lists["pest_verbs"] for p in lists["pests"]], 1)
    games = [
        frame.format(m=m, g=g) for frame in lists["game_frames"] for m in lists["monsters"] for g in lists["games"]
    ]
    lookalike += rng.sample(games, 80) + lists["figurative"]
    harmful = lists["harmful_verbs"] + lists["more_harmful_verbs"]
    lookalike += fill(lists["twin_frames"], harmful, 2)
    return {
        "harmful": fill(how, harmful, 3) + fill(pushy, harmful, 2),
        "harmless": fill(how, lists["benign_verbs"], 3) + fill(pushy, lists["benign_verbs"], 3),
        "lookalike": lookalike,
    }
