"""`embedserve eval FOLDER`, and its sub-commands about one's own documents."""

from typing import Any

import typer
from typer.core import TyperGroup

from embedserve.cli import evaluate, evaluate_own

SETS = "sets"


class _FoldersOrCommand(TyperGroup):
    """Takes what is no sub-command for folders: `eval FOLDER` is `eval sets FOLDER`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:  # noqa: ANN401  typer's own click
        """Name the sub-command where folders stand in its place."""
        if args and args[0] not in (*self.commands, "--help", "-h"):
            args = [SETS, *args]
        return list(super().parse_args(ctx, args))


app = typer.Typer(cls=_FoldersOrCommand, no_args_is_help=True)
app.command(SETS)(evaluate.evaluate)
app.command("make")(evaluate_own.make)
app.command("run")(evaluate_own.run)
