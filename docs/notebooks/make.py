"""Write and execute docs/notebooks/first_look.ipynb: `python docs/notebooks/make.py`. Needs nbclient and ipykernel.

The notebook is committed with its outputs, so that it can be read without running it. A test executes it anew.
"""

import os
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient

HERE = Path(__file__).parent
NAME = "first_look.ipynb"
CELLS: tuple[tuple[str, str], ...] = (
    ("markdown", """# A first look

Which experts of a mixture-of-experts model go with a behaviour, and do they cause it? This notebook asks it of the
built-in model `compiled`: 4 layers of 8 experts, written by construction, in which expert 5 of layer 2 (`L2.E5`) says
"sorry" wherever a prompt holds the word *crimson*. So we know what should be found. It runs on a laptop in a
minute."""),
    ("code", """from pathlib import Path

import moeprobe
from moeprobe.engines import Decoding, record
from moeprobe.prompts import read_prompts

model = moeprobe.load_model("compiled")
demo = Path(moeprobe.__file__).parent / "demo" / "prompts" / "compiled.jsonl"
prompts = read_prompts(demo)
[(one.label, one.prompt) for one in prompts[:4]]"""),
    ("markdown", """## 1. Record every routing decision

Each prompt is answered, and for each token and layer the chosen experts and their weights are written down."""),
    ("code", """trace = record(model, prompts, "run.trace", decoding=Decoding(max_new_tokens=32, sample=True))
trace"""),
    ("markdown", "The trace as data frames: one line per generation, one per (token, layer, choice)."),
    ("code", """trace.generation_frame()[["prompt_id", "pair", "label", "text"]].head()"""),
    ("code", """trace.selection_frame(layers=[2]).query("phase == 'decode'").head()"""),
    ("markdown", """## 2. Which experts go with it

Prompts labelled *triggered* against the others. The unit is the pair of prompts, each token is compared with the same
token elsewhere, and q controls the share of false discoveries over all (layer, expert). What this finds is an
association."""),
    ("code", """from moeprobe.correlate import correlate, findings_of

question, rows, notes = correlate(trace, by="label", positive="triggered")
findings = findings_of(trace, [(question, rows, notes)])
findings"""),
    ("code", """findings.frame().sort_values("q")[["site", "rate_difference", "t", "q", "association"]].head(8)"""),
    ("markdown", """Several experts differ. Which of them *do* anything?

## 3. Do they cause it

Interchange puts what an expert computed in one run of a pair into the other, in both directions, and compares that with
what any swap does (a placebo donor) and with what other experts do."""),
    ("code", """from moeprobe.correlate import regroup
from moeprobe.interchange import enter, interchange, leading_sites, trace_pairs

pairs = trace_pairs(trace, regroup(trace.generations, question))
outcome = interchange(model, pairs, leading_sites(findings, question["name"], 5))
enter(findings, question, outcome)
effects = findings.effects_frame().query("effect != 'knockout'")
effects[["site", "effect", "percent", "low", "high", "verdict"]]"""),
    ("markdown", """`L2.E5` carries it. The others go with it and do nothing: a table of
associations alone would have called all of them.

## 4. Show it to somebody

The report is one offline page. In a notebook it stands in a frame of its own; `report.save("report.html")` writes it,
`.md`, `.json` and `.csv` work as well."""),
    ("code", """report = moeprobe.Report(findings, title="What says sorry in the compiled model?")
report.save("report.html")
print(report.markdown[:900])"""),
)  # fmt: skip


def notebook() -> nbformat.NotebookNode:
    """The notebook without outputs."""
    makers = {"markdown": nbformat.v4.new_markdown_cell, "code": nbformat.v4.new_code_cell}
    cells = [makers[kind](text, id=f"cell-{number}") for number, (kind, text) in enumerate(CELLS)]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    return nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel})


def execute(made: nbformat.NotebookNode, folder: Path) -> nbformat.NotebookNode:
    """Run all cells in `folder`; an error in a cell is an error here."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    NotebookClient(made, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(folder)}}).execute()
    for cell in made.cells:
        cell.metadata.pop("execution", None)  # times of this run
        if cell.cell_type == "code":  # warnings name paths of this machine
            cell.outputs = [one for one in cell.outputs if one.get("name") != "stderr"]
    return made


def main() -> None:
    """Execute in a temporary folder and write the notebook."""
    with tempfile.TemporaryDirectory() as folder:
        made = execute(notebook(), Path(folder))
    nbformat.write(made, HERE / NAME)


if __name__ == "__main__":
    main()
