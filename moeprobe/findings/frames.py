"""Findings as tidy data frames: one line per (question, site), per effect, per pair, or per layer."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas

    from moeprobe.findings.document import Findings

Json = Mapping[str, Any]
_EFFECTS = ("necessity", "sufficiency", "knockout", "knockout_bar", "knockout_mean", "knockout_resample")


def rows_frame(findings: "Findings") -> "pandas.DataFrame":
    """One line for each (question, expert), in the file's order.

    Columns are the scalars of docs/findings.md, nested ones joined by a dot (``marginal.q``); an interval ``x_ci``
    becomes ``x_low`` and ``x_high``. Of interchange each effect's percent, interval and p (``necessity.percent``,
    ``necessity.low``, ``necessity.p``), empty where it was not run; per-pair values are in `pairs_frame`.
    """
    import pandas as pd

    lines = []
    for row in findings.rows:
        plain = {key: value for key, value in row.items() if key not in ("interchange", "evidence")}
        lines.append({**_flat(plain), **_effects(row["interchange"])})
    return pd.DataFrame(lines)


def effects_frame(findings: "Findings") -> "pandas.DataFrame":
    """One line for each (question, site, effect) that interchange measured, sets and heads included.

    Columns: question, site, verdict, effect, percent, low, high (percent of the gap, 95 %), mean (unit of the metric),
    p, pairs, exactly_zero, null_largest (largest absolute percent of the comparison sites).
    """
    import pandas as pd

    columns = [
        "question", "site", "verdict", "effect", "percent", "low", "high", "mean", "p", "pairs", "exactly_zero",
        "null_largest",
    ]  # fmt: skip
    lines = [
        {"question": question, "site": site, "verdict": verdict, **line}
        for question, site, verdict, swaps in _tested(findings)
        for line in _measured(swaps)
    ]
    return pd.DataFrame(lines, columns=columns)


def pairs_frame(findings: "Findings") -> "pandas.DataFrame":
    """One line for each (question, site, arm, pair) of the interchange runs, comparison sites included.

    Columns: question, site, arm, pair, effect (in the unit of the run's metric; missing where the arm had none).
    """
    import pandas as pd

    lines = [
        {"question": run["probe"], "site": site, "arm": arm, "pair": pair, "effect": value}
        for run in findings.interchange
        for site, arms in run.get("per_pair", {}).items()
        for arm, values in arms.items()
        for pair, value in zip(run["pair_ids"], values, strict=True)
    ]
    return pd.DataFrame(lines, columns=["question", "site", "arm", "pair", "effect"])


def layers_frame(findings: "Findings") -> "pandas.DataFrame":
    """One line for each (question, layer): the divergence and entropy columns of docs/findings.md."""
    import pandas as pd

    lines = [
        {"question": question["name"], **_flat(layer), "committee": "+".join(layer["committee"])}
        for question in findings.questions
        for layer in question["layers"]
    ]
    return pd.DataFrame(lines)


def _tested(findings: "Findings") -> list[tuple[str, str, str, Json]]:
    """Question, site, verdict and effects of all that interchange tested: experts, then all else."""
    rows = [
        (row["probe"], row["site"], row["verdict"], row["interchange"])
        for row in findings.rows
        if row["interchange"] is not None
    ]
    others = [
        (run["probe"], other["site"], other["verdict"], other["interchange"])
        for run in findings.interchange
        for other in run["others"]
    ]
    return rows + others


def _measured(swaps: Json) -> list[dict[str, Any]]:
    lines = []
    for name in _EFFECTS:
        if name not in swaps:
            continue
        found, null = swaps[name], [abs(value) for value in swaps["null"].get(name, ()) if value is not None]
        low, high = found["ci"] or (None, None)
        lines.append(
            {
                "effect": name,
                "percent": found["percent"],
                "low": low,
                "high": high,
                "mean": found["mean"],
                "p": found.get("p"),
                "pairs": len(found["per_pair"]),
                "exactly_zero": swaps["exactly_zero"],
                "null_largest": max(null, default=None),
            }
        )
    return lines


def _effects(swaps: Json | None) -> dict[str, Any]:
    """The columns of the interchange effects of one expert; none where it was not tested."""
    if swaps is None:
        return {}
    return {
        f"{line['effect']}.{key}": line[key]
        for line in _measured(swaps)
        for key in ("percent", "low", "high", "p")
        if key != "p" or line["p"] is not None
    }


def _flat(tree: Json, prefix: str = "") -> dict[str, Any]:
    """Scalars under dotted names, intervals as two columns; longer lists are left out."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            flat.update(_flat(value, f"{name}."))
        elif key.endswith("_ci"):
            flat[f"{name.removesuffix('_ci')}_low"], flat[f"{name.removesuffix('_ci')}_high"] = _ends(value)
        elif not isinstance(value, list | tuple):
            flat[name] = value
    return flat


def _ends(interval: Sequence[float | None] | None) -> tuple[float | None, float | None]:
    return (None, None) if interval is None else (interval[0], interval[1])
