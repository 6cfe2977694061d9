"""The figures of docs/editing.md: python -m tests.editing.table, from the root of the repository."""

import torch

from tests.editing.exact import FIGURES, Exact, measure
from tests.editing.test_exactness import CASES


def main() -> None:
    """Print a table of all measurements."""
    torch.set_num_threads(1)
    found = {name: [measure(*case, getattr(torch, name)) for case in CASES] for name in ("float32", "bfloat16")}
    print(f"{len(CASES)} configurations of {len({family for family, _ in CASES})} families")
    for name in Exact.__dataclass_fields__:
        cells = [name]
        for measured in found.values():
            values = [getattr(one, name) for one in measured]
            same = sum(value == 0 for value in values) if name in FIGURES else sum(values)
            cells += [f"{max(values):.1e}" if name in FIGURES else "-", f"{same}/{len(values)}"]
        print("| " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
