"""The `embedserve` command: its sub-commands, its errors, its exit codes.

Exit codes: 0 done; 1 failed; 2 wrong usage; 3 what was named does not exist; 4 done, but some
files failed; 130 interrupted.
"""

import sys
from typing import Annotated

import typer

from embedserve import __version__
from embedserve.cli import (
    backup,
    doctor,
    documents,
    env,
    evaluate_app,
    index_care,
    indexes,
    jobs,
    models,
    pull,
    query,
    retrieval,
    serve,
    watch,
)
from embedserve.cli.console import errors
from embedserve.errors import EmbedserveError, NotFoundError

app = typer.Typer(
    name="embedserve",
    help="Embeddings and retrieval: quantized ONNX encoders behind Ollama's API, folders "
    "ingested into Chroma, answers with their sources.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


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


app.command("serve")(serve.serve)
app.command("pull")(pull.pull)
app.command("list")(models.list_models)
app.command("show")(models.show)
app.command("verify")(models.verify)
app.command("copy")(models.copy)
app.command("rm")(models.remove)
app.command("embed")(models.embed)
app.command("ingest")(retrieval.ingest)
app.command("watch")(watch.watch)
app.command("query")(query.query)
app.command("doctor")(doctor.doctor)
app.command("env")(env.env)
app.command("backup")(backup.backup)
app.command("vacuum")(index_care.vacuum)
app.add_typer(
    indexes.app, name="index", help="Create, list, show, check, rebuild and delete indexes."
)
app.add_typer(
    documents.app, name="documents", help="List, add, show and delete documents of an index."
)
app.add_typer(
    evaluate_app.app,
    name="eval",
    help="Measure search: `eval FOLDER` on judged sets, `eval make` and `run` on your documents.",
)
app.add_typer(jobs.app, name="jobs", help="List, show and cancel ingestion jobs.")


def run() -> None:
    """Run the command line; every deliberate error becomes one sentence and an exit code."""
    try:
        app()
    except NotFoundError as error:
        _fail(error, 3)
    except EmbedserveError as error:
        _fail(error, 1)
    except KeyboardInterrupt:
        sys.exit(130)


def _fail(error: EmbedserveError, code: int) -> None:
    errors.print(f"embedserve: {error.message}", style="red")
    sys.exit(code)
