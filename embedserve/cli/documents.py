"""Commands about single documents of an index: list, add, show, delete."""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, BinaryIO

import typer

from embedserve.cli.archives import parts_of
from embedserve.cli.client import Client, Home, Json, connect
from embedserve.cli.console import (
    AsJson,
    errors,
    print_json,
    print_result,
    print_table,
    size,
    standard_input,
)
from embedserve.cli.job_display import leave, run_to_end
from embedserve.cli.retrieval import IndexName, start_job
from embedserve.errors import EmbedserveError, InvalidRequestError, PathNotFoundError
from embedserve.types import DocumentStatus, SourceKind

PAGE = 1000
SHOWN_DELETED = 20
FACTS = (
    *("path", "title", "id", "source", "kind", "status", "chunks", "size_bytes", "sha256"),
    *("indexed_at", "code", "message", "hint"),
)

app = typer.Typer(no_args_is_help=True)

Glob = Annotated[
    list[str] | None,
    typer.Option("--glob", help="Whose path matches; `*` matches `/` too. Repeatable."),
]
Ids = Annotated[list[int] | None, typer.Option("--id", help="Of this id. Repeatable.")]
Fields = Annotated[
    list[str] | None,
    typer.Option(
        "--metadata",
        metavar="KEY=VALUE",
        help='Repeatable. Numbers, true and false are taken as such; `year="2024"`, quotes '
        "included, is text.",
    ),
]
Source = Annotated[SourceKind | None, typer.Option("--source", help="Where they are from.")]
Status = Annotated[
    DocumentStatus | None,
    typer.Option("--status", help="`unreadable` ones gave no chunks, `pending` ones wait."),
]


@app.command("list")
def list_documents(  # noqa: PLR0913  # each parameter is an option of the command
    index: IndexName = "default",
    glob: Glob = None,
    metadata: Fields = None,
    source: Source = None,
    status: Status = None,
    limit: Annotated[int, typer.Option(min=1, help="Documents to show.")] = 100,
    offset: Annotated[int, typer.Option(min=0, help="Documents to leave out first.")] = 0,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """List documents by path: those that meet every condition."""
    wanted = _filter(glob, None, metadata, source, status)
    with connect(home) as client:
        # One more than is shown tells whether there are others.
        found = list(islice(matching(client, index, wanted, offset), limit + 1))
    shown = found[:limit]
    if as_json:
        next_offset = offset + limit if len(found) > limit else None
        print_json({"documents": shown, "next_offset": next_offset})
        return
    if not shown:
        errors.print("No such document.")
        return
    rows = [
        [one["path"], one["source"], str(one["chunks"]), size(one["size_bytes"]), _state(one)]
        for one in shown
    ]
    print_table(rows, "PATH", "SOURCE", "CHUNKS", "SIZE", "STATUS")
    if len(found) > limit:
        errors.print(f"There are more: `--offset {offset + limit}`.")


@app.command("add")
def add(  # noqa: PLR0913  # each parameter is an option of the command
    files: Annotated[
        list[Path], typer.Argument(help="Files to send; `-` is a text on standard input.")
    ],
    index: IndexName = "default",
    name: Annotated[
        str | None,
        typer.Option(help="What it is listed under. [the file's name]", show_default=False),
    ] = None,
    title: Annotated[str, typer.Option(help="In front of what is embedded.")] = "",
    metadata: Fields = None,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Send documents to an index, which keeps them; one of the same name is replaced."""
    if name is not None and len(files) > 1:
        raise typer.BadParameter("It names one document; several keep the names of their files.")
    about = {"title": title, "metadata": parse_fields(metadata)}
    with ExitStack() as stack:
        begin = _sending(files, name, about, stack)
        client = stack.enter_context(connect(home, is_long=True))
        job = start_job(client, index, lambda: begin(client, index)["job"])
        ended = run_to_end(client, job["id"], as_json=as_json)
    leave(ended)


@app.command("show")
def show(
    path: Annotated[str, typer.Argument(help="Path, as `documents list` prints it.")],
    index: IndexName = "default",
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Describe one document: where it is from, what it gave, and why it gave nothing."""
    with connect(home) as client:
        document = client.get("indexes", index, "documents", path)
    if as_json:
        print_json(document)
        return
    rows = [[key.replace("_", " "), str(document[key])] for key in FACTS if document[key]]
    rows += [[f"metadata {key}", _said(value)] for key, value in document["metadata"].items()]
    print_table(rows)


@app.command("rm")
def remove(  # noqa: PLR0913  # each parameter is an option of the command
    paths: Annotated[
        list[str] | None, typer.Argument(help="Paths, as `documents list` prints them.")
    ] = None,
    index: IndexName = "default",
    ids: Ids = None,
    glob: Glob = None,
    metadata: Fields = None,
    source: Source = None,
    status: Status = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Delete documents with their chunks: those named, or all that meet every condition.

    Files of folders stay where they are; the next ingestion brings them back.
    """
    wanted = _filter(glob, ids, metadata, source, status)
    if bool(paths) == bool(wanted):
        raise typer.BadParameter("Give paths, or conditions such as --glob, and not both.")
    with connect(home) as client:
        if paths:
            reply = _delete_named(client, index, paths)
        else:
            _ask(list(matching(client, index, wanted, 0)), is_agreed=yes)
            place = ("indexes", index, "documents", "delete")
            reply = client.post(*place, body={"filter": wanted})
    for warning in reply["warnings"]:
        errors.print(f"Note: {warning}", style="yellow")
    print_result(reply, f"deleted {_documents(reply['deleted'])}", as_json=as_json)


def parse_fields(pairs: Sequence[str] | None) -> dict[str, str | float | bool]:
    """Read `key=value` pairs; numbers, true, false and what is quoted are read as JSON."""
    found: dict[str, str | float | bool] = {}
    for pair in pairs or ():
        key, equals, value = pair.partition("=")
        if not key or not equals:
            raise typer.BadParameter(f"`{pair}` is not KEY=VALUE.", param_hint="--metadata")
        found[key] = _value(value)
    return found


def _value(text: str) -> str | float | bool:
    try:
        value = json.loads(text, parse_constant=str)
    except ValueError:
        return text
    return value if isinstance(value, str | int | float) else text


def _filter(
    glob: list[str] | None,
    ids: list[int] | None,
    metadata: list[str] | None,
    source: SourceKind | None,
    status: DocumentStatus | None,
) -> Json:
    """Return the conditions that were given, as the API takes them."""
    conditions = {
        "paths": glob,
        "ids": ids,
        "metadata": parse_fields(metadata),
        "source": source,
        "status": status,
    }
    return {key: value for key, value in conditions.items() if value}


def matching(client: Client, index: str, wanted: Json, offset: int = 0) -> Iterator[Json]:
    """Give the documents that meet a filter, by path."""
    query: dict[str, Any] = {
        {"paths": "path", "ids": "id"}.get(key, key): value for key, value in wanted.items()
    }
    if "metadata" in query:
        query["metadata"] = json.dumps(query["metadata"])
    while True:
        page = client.get("indexes", index, "documents", limit=PAGE, offset=offset, **query)
        yield from page["documents"]
        if page["next_offset"] is None:
            return
        offset = page["next_offset"]


def _sending(
    files: Sequence[Path], name: str | None, about: Json, stack: ExitStack
) -> Callable[[Client, str], Json]:
    """Return what sends the documents, once they are open; it gives the server's reply."""
    if files == [Path("-")]:
        body = {"text": standard_input(), "name": name, **about}
        return lambda client, index: client.post("indexes", index, "documents", body=body)
    opened = [(file.name, stack.enter_context(_opened(file))) for file in files]
    fields = {"title": about["title"], "metadata": json.dumps(about["metadata"])}
    if len(opened) > 1:
        _check_names(opened)
        return lambda client, index: client.send(
            "indexes", index, "documents", files=opened, fields=fields
        )
    [(called, file)] = opened
    content, path = parts_of(file), ("documents", name or called)
    return lambda client, index: client.upload(
        "indexes", index, *path, body=content, method="PUT", **fields
    )


def _check_names(files: Sequence[tuple[str, BinaryIO]]) -> None:
    """Refuse names that a form cannot carry: its readers would see another one."""
    for name, _ in files:
        if '"' in name:
            raise InvalidRequestError(
                f"`{name}` has a quotation mark in its name. Send it by itself, or rename it."
            )


def _opened(file: Path) -> BinaryIO:
    """Open what is to be sent; raise PathNotFoundError, or EmbedserveError when it is locked."""
    if not file.is_file():
        raise PathNotFoundError(
            f"`{file}` is no file. `embedserve ingest` takes whole folders; `-` alone is a text "
            "on standard input."
        )
    try:
        return file.open("rb")
    except OSError as error:
        raise EmbedserveError(f"`{file}` cannot be read: {error.strerror}.") from error


def _delete_named(client: Client, index: str, paths: Sequence[str]) -> Json:
    """Delete what is named; a path that is unknown ends it before anything is deleted."""
    for path in paths:
        client.get("indexes", index, "documents", path)
    replies = [client.delete("indexes", index, "documents", path) for path in paths]
    warnings = dict.fromkeys(warning for reply in replies for warning in reply["warnings"])
    return {"deleted": sum(reply["deleted"] for reply in replies), "warnings": list(warnings)}


def _ask(found: Sequence[Json], *, is_agreed: bool) -> None:
    """Name what would be deleted and let the user decide, unless it was agreed to."""
    if is_agreed or not found:
        return
    for one in found[:SHOWN_DELETED]:
        errors.print(one["path"])
    if len(found) > SHOWN_DELETED:
        errors.print(f"and {len(found) - SHOWN_DELETED} more")
    typer.confirm(f"Delete {_documents(len(found))}?", abort=True, err=True)


def _state(document: Json) -> str:
    code = document["code"]
    return f"{document['status']}: {code}" if code else str(document["status"])


def _said(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _documents(count: int) -> str:
    return f"{count} document" + ("" if count == 1 else "s")
