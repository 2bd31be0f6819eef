"""Commands that keep indexes well: check, rebuild, vacuum."""

from collections.abc import Iterator
from typing import Annotated

import typer

from embedserve.cli.client import Client, Home, Json, connect
from embedserve.cli.console import AsJson, errors, output, print_json, print_result, size
from embedserve.errors import EmbedserveError

Name = Annotated[str, typer.Argument(help="Name of the index.")]


def check(
    name: Name,
    repairs: Annotated[
        bool, typer.Option("--repair", help="Put right what can be put right.")
    ] = False,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Compare an index's catalog with its vector index; status 1 when something stays wrong."""
    with connect(home) as client:
        report = last_line(client, "indexes", name, "check", body={"repair": repairs})
    if as_json:
        print_json(report)
    else:
        _print_report(report)
    if report["faults"]:
        raise typer.Exit(1)


def rebuild(name: Name, home: Home = None, as_json: AsJson = False) -> None:
    """Build a fresh vector index from the stored vectors; the old one serves until it is done."""
    with connect(home) as client:
        result = last_line(client, "indexes", name, "rebuild", body={})
    print_result(result, f"rebuilt index {name}: {result['total']} vectors", as_json=as_json)


def vacuum(home: Home = None, as_json: AsJson = False) -> None:
    """Delete vectors that no chunk of any index has, and give free disk space back."""
    with connect(home) as client:
        result = last_line(client, "vacuum", body={})
    before, after = size(result["bytes_before"]), size(result["bytes_after"])
    sentence = f"deleted {result['vectors_deleted']} vectors; the catalog had {before}, has {after}"
    print_result(result, sentence, as_json=as_json)


def last_line(client: Client, *path: str, body: Json) -> Json:
    """Follow what takes long and return its result; progress goes to a terminal only."""
    line: Json = {}
    for line in _shown(client.lines(*path, body=body)):
        if "error" in line:
            raise EmbedserveError(line["error"])
    if not line:
        raise EmbedserveError("The server ended its answer before the result. Look at its log.")
    return line


def _shown(lines: Iterator[Json]) -> Iterator[Json]:
    with errors.status("working") as status:
        for line in lines:
            parts = [str(line.get("status", "")), *(str(line[k]) for k in ("done",) if k in line)]
            status.update(" ".join(parts))
            yield line


def _print_report(report: Json) -> None:
    for fault in report["repaired"]:
        output.print(f"repaired: {fault['message']}")
    for fault in report["faults"]:
        output.print(f"wrong: {fault['message']} {fault['hint']}".rstrip())
    counts = report["counts"]
    stored = "unknown" if report["stored"] is None else report["stored"]
    output.print(
        f"{report['status']}: index {report['index']}, {counts['chunks']} chunks, "
        f"{counts['vectors']} vectors, {stored} in the vector index, {report['sampled']} sampled; "
        f"{report['unused_vectors']} vectors without a chunk in all"
    )
    if report["faults"]:
        errors.print(f"`embedserve index check {report['index']} --repair` puts right what it can.")
