"""The scales of the map: told apart by people with every common kind of colour vision, on light and on dark ground.

Simulation of colour blindness: Machado, Oliveira and Fernandes 2009, matrices of severity 1, in linear RGB. Distance:
Euclidean in OKLab (Ottosson 2020) times 100; about 2 is just noticeable, the two halves of a scale must be far beyond.
"""

import re
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

Array = np.ndarray
CSS = (Path(import_module("moeprobe.report.render").__file__ or "").parent / "page" / "page.css").read_text()
MACHADO = {
    "normal": np.eye(3),
    "protanopia": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
    "deuteranopia": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    ),
    "tritanopia": np.array(
        [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]]
    ),
}
TO_LMS = np.array(
    [[0.4122214708, 0.5363325363, 0.0514459929], [0.2119034982, 0.6806995451, 0.1073969566],
     [0.0883024619, 0.2817188376, 0.6299787005]]
)  # fmt: skip
TO_LAB = np.array(
    [[0.2104542553, 0.7936177850, -0.0040720468], [1.9779984951, -2.4285922050, 0.4505937099],
     [0.0259040371, 0.7827717662, -0.8086757660]]
)  # fmt: skip
PUOR = ["#542788", "#998ec3", "#d8daeb", "#f7f7f7", "#fee0b6", "#f1a340", "#b35806"]  # ColorBrewer, 7 classes
RED_GREEN = ["#1a9850", "#91cf60", "#d9ef8b", "#ffffbf", "#fee08b", "#fc8d59", "#d73027"]  # ColorBrewer RdYlGn: unsafe


def stops(scheme: str, prefix: str) -> list[str]:
    blocks = re.findall(r":root \{(.*?)\}", CSS, re.S)
    found = dict(re.findall(rf"--({prefix}\d): (#[0-9a-f]{{6}})", blocks[0 if scheme == "light" else 1]))
    return [found[f"{prefix}{i}"] for i in range(len(found))]


def lab(colours: list[str], vision: str) -> Array:
    """OKLab times 100 of 33 steps along a scale, as seen with `vision`: (steps, 3)."""
    rgb = np.array([[int(one[i : i + 2], 16) for i in (1, 3, 5)] for one in colours], dtype=float)
    at = np.linspace(0, len(colours) - 1, 33)
    along = np.stack([np.interp(at, np.arange(len(colours)), rgb[:, i]) for i in range(3)], axis=1) / 255
    linear = np.where(along <= 0.04045, along / 12.92, ((along + 0.055) / 1.055) ** 2.4)
    seen = np.clip(linear @ MACHADO[vision].T, 0, 1)
    return 100 * np.cbrt(seen @ TO_LMS.T) @ TO_LAB.T


def two_sides(colours: list[str], vision: str) -> float:
    """The smallest distance of a value from its opposite, from half of the scale outwards."""
    seen = lab(colours, vision)
    return float(np.linalg.norm(seen - seen[::-1], axis=1)[:9].min())


def test_the_measure_knows_black_white_and_a_bad_scale() -> None:
    black, *_, white = lab(["#000000", "#ffffff"], "normal")
    assert white[0] - black[0] == pytest.approx(100, abs=0.1)
    assert two_sides(RED_GREEN, "normal") > 10
    assert two_sides(RED_GREEN, "deuteranopia") < 5


@pytest.mark.parametrize("vision", list(MACHADO))
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_more_and_less_are_told_apart(scheme: str, vision: str) -> None:
    assert two_sides(stops(scheme, "d"), vision) > 10


@pytest.mark.parametrize("vision", list(MACHADO))
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_middle_is_nothing_and_the_ends_stand_out(scheme: str, vision: str) -> None:
    seen = lab(stops(scheme, "d"), vision)
    away = np.linalg.norm(seen - seen[16], axis=1)
    assert away[0] > 30
    assert away[-1] > 30
    assert (np.diff(away[16:]) > 0).all()
    assert (np.diff(away[16::-1]) > 0).all()


@pytest.mark.parametrize("vision", list(MACHADO))
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_small_q_is_always_further_along(scheme: str, vision: str) -> None:
    lightness = lab(stops(scheme, "s"), vision)[:, 0]
    steps = np.diff(lightness)
    assert (steps < 0).all() if scheme == "light" else (steps > 0).all()
    assert abs(lightness[-1] - lightness[0]) > 45


def test_the_light_scale_is_the_published_one() -> None:
    assert stops("light", "d") == PUOR
