"""The command `moeprobe`. Command modules import heavy libraries inside their functions, so --help stays quick."""

import os
import sys

import click

from moeprobe import __version__
from moeprobe.cli.compare import compare
from moeprobe.cli.correlate import correlate
from moeprobe.cli.demo import demo
from moeprobe.cli.doctor import doctor
from moeprobe.cli.export import export
from moeprobe.cli.generate import generate
from moeprobe.cli.info import info
from moeprobe.cli.interchange import interchange
from moeprobe.cli.labelling import labels
from moeprobe.cli.merge import merge
from moeprobe.cli.probes import probes
from moeprobe.cli.report import report
from moeprobe.cli.rerun import rerun
from moeprobe.cli.terminal import printable
from moeprobe.cli.trace import trace
from moeprobe.cli.validate import validate
from moeprobe.cli.variables import name_variables, unknown_variables
from moeprobe.errors import MoeprobeError


class _Commands(click.Group):
    """Lists commands in the order of work, and suggests the nearest name for a wrong one."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        del ctx
        return list(self.commands)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, "-V", "--version", message="moeprobe %(version)s")
def cli() -> None:
    """Find the experts of a mixture-of-experts language model that go with a behaviour, test whether they cause it,
    and show it.

    \b
      moeprobe demo -o demo                                    all of it, on a built-in model
      moeprobe trace prompts.jsonl -m MODEL -o run.trace       record every routing decision
      moeprobe correlate run.trace --probe refusal             which experts go with it
      moeprobe interchange run.findings.json                   do they cause it
      moeprobe generate MODEL --prompt Hi --edit zero:L18.E5   what it writes without an expert
      moeprobe report run.findings.json -o report.html         a page anyone can read
    """


for command in (
    demo,
    doctor,
    trace,
    rerun,
    info,
    validate,
    merge,
    export,
    probes,
    labels,
    correlate,
    compare,
    interchange,
    generate,
    report,
):
    cli.add_command(command)
name_variables(cli)


def main() -> None:
    """Run the command line. Exit status: 0 done, 1 failed, 2 wrong usage."""
    # Read when torch is loaded, which commands do later. Threads that spin while they wait make a forward pass 20 times
    # slower as soon as another program wants a core (SmolLM2, 8 x 45 tokens on 2 cores: 10.6 s against 0.53 s).
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if strange := unknown_variables(cli):
        click.echo(printable(f"Ignored, since no option is called so: {', '.join(strange)}."), err=True)
    try:
        code = cli.main(prog_name="moeprobe", standalone_mode=False, color=_colours())
        sys.exit(code if isinstance(code, int) else 0)
    except click.ClickException as problem:
        problem.show()
        sys.exit(problem.exit_code)
    except (click.Abort, KeyboardInterrupt):
        _fail("Interrupted. Files that were finished before are kept; the one in work was not given its name.")
    except MoeprobeError as problem:
        _fail(str(problem))
    except OSError as problem:
        if isinstance(problem, BrokenPipeError):
            _reader_gone()
        _fail(f"{problem.strerror or problem}: {str(problem.filename or '')[:200]}")


def _colours() -> bool | None:
    """No colours where NO_COLOR is set to anything (no-color.org); else click decides: none off a terminal."""
    return False if os.environ.get("NO_COLOR") else None


def _reader_gone() -> None:
    """The reader of our output went away (`| head`); Python would complain once more at shutdown."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(1)


def _fail(message: str) -> None:
    click.echo("Error: " + printable(message), err=True)
    sys.exit(1)
