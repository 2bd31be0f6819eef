"""The `embedserve` command: its sub-commands, its errors, its exit codes.

Exit codes: 0 done; 1 failed; 2 wrong usage; 3 what was named does not exist; 4 done, but some
files failed; 130 interrupted.
"""

import sys
from collections.abc import Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer
from typer.core import TyperGroup

from embedserve import __version__
from embedserve.errors import EmbedserveError, NotFoundError

if TYPE_CHECKING:
    from typer._click import Command


class Part(NamedTuple):
    """A sub-command: where it is, and the line that the list of commands has of it."""

    place: str
    """Module in this folder and what it has: a function, or an app with commands of its own."""
    summary: str


COMMANDS = {
    "serve": Part(
        "serve:serve",
        "Serve the API until interrupted. Every other setting is an EMBEDSERVE_* variable.",
    ),
    "pull": Part(
        "pull:pull",
        "Fetch a model, export and quantize it, measure it, install the fastest faithful form.",
    ),
    "list": Part(
        "models:list_models", "List the installed models and how much of the disk they take."
    ),
    "show": Part(
        "models:show",
        "Describe an installed model: what serves, how faithful and fast it is, and why it.",
    ),
    "verify": Part(
        "models:verify",
        "Check a model's files and canary, and measure it again here; status 1 if it differs.",
    ),
    "copy": Part(
        "models:copy", "Give an installed model another name; both share one loaded graph."
    ),
    "rm": Part(
        "models:remove", "Remove an installed model; requests that use it go on to their end."
    ),
    "embed": Part("models:embed", "Print the embedding of each text, one line of numbers each."),
    "ingest": Part(
        "retrieval:ingest",
        "Bring an index in step with a folder; the index is created when it does not exist.",
    ),
    "watch": Part(
        "watch:watch",
        "Bring an index in step with a folder, and again whenever something changes in it.",
    ),
    "query": Part(
        "query:query",
        "Print the passages that answer a question, best first, each with its score of 0 to 1.",
    ),
    "mcp": Part(
        "mcp:mcp",
        "Offer search and reading to a model by the Model Context Protocol, over standard input.",
    ),
    "doctor": Part(
        "doctor:doctor",
        "Try what a client calls, and print its settings; status 1 if the server falls short.",
    ),
    "env": Part("env:env", "Print every setting, its value and where it is from; keys are masked."),
    "backup": Part(
        "backup:backup",
        "Copy catalog, models and definitions, also while a server runs; Chroma is derived.",
    ),
    "vacuum": Part(
        "index_care:vacuum",
        "Delete vectors that no chunk of any index has, and give free disk space back.",
    ),
    "index": Part("indexes:app", "Create, list, show, check, rebuild and delete indexes."),
    "documents": Part("documents:app", "List, add, show and delete documents of an index."),
    "eval": Part(
        "evaluate_app:app",
        "Measure search: `eval FOLDER` on judged sets, `eval make` and `run` on your documents.",
    ),
    "jobs": Part("jobs:app", "List, show and cancel ingestion jobs."),
}


class Commands(TyperGroup):
    """The commands of the table; one is loaded when it is the one that was called."""

    def resolve_command(
        self,
        ctx: Any,  # noqa: ANN401  typer's own click
        args: list[str],
    ) -> "tuple[str | None, Command | None, list[str]]":
        """Return the command that the first of these names, loaded."""
        name, _, rest = super().resolve_command(ctx, args)
        return name, load(name) if name else None, rest


def load(name: str) -> "Command":
    """Import a command of the table; only then are its options known."""
    module, _, attribute = COMMANDS[name].place.partition(":")
    found = getattr(import_module(f"embedserve.cli.{module}"), attribute)
    alone = typer.Typer()
    if isinstance(found, typer.Typer):
        alone.add_typer(found, name=name, help=COMMANDS[name].summary)
    else:
        alone.command(name)(found)
    return typer.main.get_group(alone).commands[name]


app = typer.Typer(
    name="embedserve",
    cls=Commands,
    help="Embeddings and retrieval: quantized ONNX encoders behind Ollama's API, folders "
    "ingested into Chroma, answers with their sources.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _unloaded() -> None:
    """Stand in the list of commands for one that is not loaded."""


for _name, _part in COMMANDS.items():
    app.command(_name, help=_part.summary)(_unloaded)


def _show_version(*, is_wanted: bool) -> None:
    if is_wanted:
        typer.echo(f"embedserve {__version__}")
        raise typer.Exit


@app.callback()
def main(
    *,
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            callback=lambda value: _show_version(is_wanted=value),
            is_eager=True,
            help="Print the version.",
        ),
    ] = False,
) -> None:
    """Serve embeddings and search; the parts are sub-commands."""


def run(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; every deliberate error becomes one sentence and an exit code.

    `arguments`: what follows the command's name; None: those of this process.
    """
    try:
        app(args=arguments)
    except NotFoundError as error:
        _fail(error, 3)
    except EmbedserveError as error:
        _fail(error, 1)
    except KeyboardInterrupt:
        sys.exit(130)


def _fail(error: EmbedserveError, code: int) -> None:
    from embedserve.cli.console import errors  # what prints is heavier than a list of commands

    errors.print(f"embedserve: {error.message}", style="red")
    sys.exit(code)
