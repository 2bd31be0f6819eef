"""Commands about indexes: list, show, create, delete."""

from typing import Annotated

import typer

from embedserve.cli.client import Home, connect
from embedserve.cli.console import AsJson, errors, output, plain_table, print_json

app = typer.Typer(no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="Name of the index.")]


@app.command("list")
def list_indexes(home: Home = None, as_json: AsJson = False) -> None:
    """List the indexes with their counts."""
    with connect(home) as client:
        indexes = client.get("/indexes")["indexes"]
    if as_json:
        print_json({"indexes": indexes})
        return
    if not indexes:
        errors.print("No index yet. `embedserve ingest FOLDER --index NAME` makes one.")
        return
    table = plain_table("NAME", "MODEL", "DOCUMENTS", "CHUNKS", "REACHABLE", "UNREADABLE")
    for index in indexes:
        counts = index["counts"]
        numbers = (counts[key] for key in ("documents", "chunks", "reachable", "unreadable"))
        shown = ["?" if number is None else str(number) for number in numbers]
        table.add_row(index["name"], index["model"], *shown)
    output.print(table)


@app.command("show")
def show(name: Name, home: Home = None, as_json: AsJson = False) -> None:
    """Describe one index: definition and counts."""
    with connect(home) as client:
        index = client.get(f"/indexes/{name}")
    if as_json:
        print_json(index)
        return
    table = plain_table()
    for key in ("name", "description", "model", "dimensions", "created_at", "problem"):
        if index[key]:
            table.add_row(key.replace("_", " "), str(index[key]))
    for key, value in index["counts"].items():
        table.add_row(key, "unknown: the vector index is down" if value is None else str(value))
    for source in index["definition"]["sources"]:
        table.add_row("source", source["path"])
    output.print(table)


@app.command("create")
def create(
    name: Name,
    model: Annotated[
        str | None, typer.Option(help="Installed model. [the default model]", show_default=False)
    ] = None,
    description: Annotated[str, typer.Option(help="What it holds.")] = "",
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Create an index; a definition file in `indexes/` does the same and is kept in git."""
    with connect(home) as client:
        index = client.put(f"/indexes/{name}", {"model": model, "description": description})
    if as_json:
        print_json(index)
    else:
        output.print(f"index {name} with model {index['model']}", markup=False, highlight=False)


@app.command("delete")
def delete(name: Name, home: Home = None, as_json: AsJson = False) -> None:
    """Delete an index with everything in it; the documents stay where they are."""
    with connect(home) as client:
        reply = client.delete(f"/indexes/{name}")
    if as_json:
        print_json(reply)
    else:
        output.print(f"deleted index {name}", markup=False, highlight=False)
