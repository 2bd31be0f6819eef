"""`embedserve eval FOLDER`, and its sub-commands about one's own documents."""

import typer
from typer.core import TyperGroup

from embedserve.cli import evaluate

SETS = "sets"


class _FoldersOrCommand(TyperGroup):
    """Takes what is no sub-command for folders: `eval FOLDER` is `eval sets FOLDER`."""

    def parse_args(self, ctx, args):
        if args and args[0] not in (*self.commands, "--help", "-h"):
            args = [SETS, *args]
        return super().parse_args(ctx, args)


app = typer.Typer(cls=_FoldersOrCommand, no_args_is_help=True)
app.command(SETS)(evaluate.evaluate)
