"""The walls of the house: who may import whom, and what stays light."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import moeprobe

PACKAGE = Path(moeprobe.__file__).parent
# From the ground up; a room may import rooms to its left only.
FLOORS = ["trace", "findings", "probes", "stats", "judging", "gathering", "designs", "labelling", "correlate",
          "compare", "models", "chat", "capture", "doctor", "engines", "editing", "pairs", "interchange", "experiments",
          "rerun", "report", "demo", "cli"]  # fmt: skip
NO_TORCH = ["trace", "findings", "probes", "stats", "judging", "gathering", "designs", "labelling", "correlate",
            "compare", "report"]  # fmt: skip
GROUND = ["errors", "sites", "files", "fields", "prompts", "visible"]


def imports(path: Path) -> set[str]:
    """Absolute names that a module imports anywhere, also inside functions and under TYPE_CHECKING."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def rooms_imported(path: Path) -> set[str]:
    return {name.split(".")[1] for name in imports(path) if name.startswith("moeprobe.") and name.count(".") >= 1}


@pytest.mark.parametrize("room", FLOORS)
def test_arrows_point_down(room: str) -> None:
    above = set(FLOORS[FLOORS.index(room) + 1 :])
    for path in (PACKAGE / room).rglob("*.py"):
        assert not rooms_imported(path) & above, f"{path} imports a room above it"


def test_interchange_and_report_do_not_look_sideways() -> None:
    for path in (PACKAGE / "report").rglob("*.py"):
        assert not rooms_imported(path) & {"capture", "models", "trace", "stats", "correlate"}, path


def test_every_room_has_a_floor() -> None:
    rooms = {path.name for path in PACKAGE.iterdir() if path.is_dir() and (path / "__init__.py").exists()}
    assert rooms - set(GROUND) == set(FLOORS)


def ground() -> list[Path]:
    """Modules that every room may import, some of them packages."""
    found = [path for name in GROUND for path in [PACKAGE / f"{name}.py", *(PACKAGE / name).rglob("*.py")]]
    return [path for path in found if path.exists()]


def test_the_ground_is_there_and_rests_on_itself() -> None:
    assert {path.relative_to(PACKAGE).parts[0].removesuffix(".py") for path in ground()} == set(GROUND)
    for path in ground():
        assert rooms_imported(path) <= set(GROUND), f"{path} imports a room above the ground"


@pytest.mark.parametrize("room", NO_TORCH)
def test_no_torch_below_the_models(room: str) -> None:
    for path in [*(PACKAGE / room).rglob("*.py"), *ground()]:
        heavy = {name.split(".")[0] for name in imports(path)} & {"torch", "transformers"}
        assert not heavy, f"{path} imports {heavy}"


def test_the_wall_check_bites(tmp_path: Path) -> None:
    planted = tmp_path / "planted.py"
    planted.write_text("def f():\n    from moeprobe.cli.main import cli\n    import torch.nn\n    return cli, torch\n")
    assert rooms_imported(planted) == {"cli"}
    assert "torch.nn" in imports(planted)


@pytest.mark.parametrize("arguments", [["--help"], ["trace", "--help"], ["probes", "--help"], ["--version"]])
def test_help_is_light(arguments: list[str]) -> None:
    code = (
        "import sys; from moeprobe.cli.main import cli\n"
        f"try: cli.main({arguments!r}, standalone_mode=False)\n"
        "except SystemExit: pass\n"
        "heavy = [n for n in ('torch', 'transformers', 'statsmodels', 'pandas', 'scipy') if n in sys.modules]\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout


def test_import_is_light() -> None:
    code = "import sys, moeprobe; sys.exit(any(n in sys.modules for n in ('torch', 'pandas', 'numpy')))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
