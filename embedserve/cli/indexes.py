"""Commands about indexes: list, show, create, delete; the others are in files of their own."""

from typing import Annotated

import typer

from embedserve.cli import archives, index_care, reembed
from embedserve.cli.client import Home, connect
from embedserve.cli.console import AsJson, errors, print_json, print_result, print_table

app = typer.Typer(no_args_is_help=True)
app.command("check")(index_care.check)
app.command("rebuild")(index_care.rebuild)
app.command("reembed")(reembed.reembed)
app.command("export")(archives.export)
app.command("import")(archives.import_)

Name = Annotated[str, typer.Argument(help="Name of the index.")]


@app.command("list")
def list_indexes(home: Home = None, as_json: AsJson = False) -> None:
    """List the indexes with their counts."""
    with connect(home) as client:
        indexes = client.get("indexes")["indexes"]
    if as_json:
        print_json({"indexes": indexes})
        return
    if not indexes:
        errors.print("No index yet. `embedserve ingest FOLDER --index NAME` makes one.")
        return
    rows = []
    for index in indexes:
        counts = index["counts"]
        numbers = (
            counts[key] for key in ("documents", "chunks", "texts", "reachable", "unreadable")
        )
        shown = ["?" if number is None else str(number) for number in numbers]
        rows.append([index["name"], index["model"], *shown])
    print_table(rows, "NAME", "MODEL", "DOCUMENTS", "CHUNKS", "TEXTS", "REACHABLE", "UNREADABLE")


@app.command("show")
def show(name: Name, home: Home = None, as_json: AsJson = False) -> None:
    """Describe one index: definition and counts."""
    with connect(home) as client:
        index = client.get("indexes", name)
    if as_json:
        print_json(index)
        return
    facts = ("name", "description", "model", "dimensions", "created_at", "problem")
    rows = [[key.replace("_", " "), str(index[key])] for key in facts if index[key]]
    for key, value in index["counts"].items():
        rows.append([key, "unknown: the vector index is down" if value is None else str(value)])
    if recall := index["recall"]:
        rows.append(["recall", f"{recall['mean']:.4f} of {recall['samples']} sampled queries"])
    rows += [["warning", warning] for warning in index["warnings"]]
    rows += [["source", source["path"]] for source in index["definition"]["sources"]]
    print_table(rows)


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
        body = {"model": model, "description": description}
        index = client.put("indexes", name, body=body)
    print_result(index, f"index {name} with model {index['model']}", as_json=as_json)


@app.command("delete")
def delete(name: Name, home: Home = None, as_json: AsJson = False) -> None:
    """Delete an index with everything in it; the documents stay where they are."""
    with connect(home) as client:
        reply = client.delete("indexes", name)
    print_result(reply, f"deleted index {name}", as_json=as_json)
