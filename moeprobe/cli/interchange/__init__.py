"""`moeprobe interchange`: experiments on what causes a behaviour."""

import click

from moeprobe.cli.interchange.behaviour import behaviour, rescue
from moeprobe.cli.interchange.cascade import cascade
from moeprobe.cli.interchange.coalition import coalition
from moeprobe.cli.interchange.dose import dose
from moeprobe.cli.interchange.screen import screen
from moeprobe.cli.interchange.test import test


class _Experiments(click.Group):
    """Sub-commands in the order of work; what is no sub-command is the findings file of `test`."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        del ctx
        return list(self.commands)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if args and args[0] not in self.commands and args[0] not in ("-h", "--help"):
            args = ["test", *args]
        return super().parse_args(ctx, args)


@click.group(cls=_Experiments, short_help="Test whether sites cause the behaviour.")
def interchange() -> None:
    """Swap what sites compute between paired runs, and see whether the behaviour moves.

    \b
      moeprobe interchange FINDINGS                             the same as `interchange test FINDINGS`
      moeprobe interchange screen FINDINGS -o screen.json       all experts, by gradient, on half of the pairs
      moeprobe interchange test FINDINGS --screen screen.json   the leading ones, on the other half
      moeprobe interchange test FINDINGS --site L14.E3+E7       a set of experts
      moeprobe interchange test -m MODEL --pairs pairs.jsonl --site L14.H3 -o out.json

    Sites: L14.E114 (expert), L14.router, L14.shared, L14.moe, L14.H3 (attention head), L14.residual; sets such as
    L14.E3+E7, L14.E3-E9, L13-L16.H*.
    """


for command in (screen, test, coalition, dose, cascade, behaviour, rescue):
    interchange.add_command(command)
