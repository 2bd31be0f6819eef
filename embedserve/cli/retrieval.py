"""Commands about documents: ingest a folder, query an index."""

import time
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.text import Text

from embedserve.cli.client import Client, Home, connect
from embedserve.cli.console import AsJson, errors, output, print_json
from embedserve.cli.jobs import fetch_job, file_results
from embedserve.errors import EmbedserveError, NotFoundError

POLL_S = 0.2
SHOWN_FILES = 4

IndexName = Annotated[str, typer.Option("--index", "-i", help="Name of the index.")]


def ingest(
    path: Annotated[
        Path | None,
        typer.Argument(help="Folder or file; without it, the sources of the index's definition."),
    ] = None,
    index: IndexName = "default",
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Bring an index in step with a folder; the index is created when it does not exist."""
    target = path.expanduser().resolve() if path else None
    with connect(home, roots=(target,) if target else (), is_long=True) as client:
        job = start_job(client, index, {"path": str(target)} if target else {})
        try:
            job = follow_job(client, job["id"], is_quiet=as_json)
        except KeyboardInterrupt:
            client.post("jobs", job["id"], "cancel")
            errors.print("Cancelled; what was ingested so far stays.")
            raise
        problems = list(file_results(client, job["id"], ("failed", "skipped")))
    if as_json:
        print_json({**job, "files": problems})
    else:
        _report(job, problems)
    if job["status"] in ("failed", "cancelled"):
        raise EmbedserveError(f"Job {job['id']} {job['status']}. {job['error'] or ''}".strip())
    if job["status"] == "succeeded_with_errors":
        raise typer.Exit(4)


def query(
    question: Annotated[str, typer.Argument(help="The question.")],
    index: IndexName = "default",
    k: Annotated[
        int | None, typer.Option("-k", help="Passages to show.", show_default=False)
    ] = None,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Print the passages nearest to a question, best first."""
    with connect(home) as client:
        reply = client.post("indexes", index, "query", body={"query": question, "k": k})
    if as_json:
        print_json(reply)
        return
    for warning in reply["warnings"]:
        errors.print(f"Note: {warning}", style="yellow")
    if not reply["hits"]:
        errors.print("Nothing found: the index is empty.")
    for rank, hit in enumerate(reply["hits"], start=1):
        _print_hit(rank, hit)


def start_job(client: Client, index: str, body: dict[str, str]) -> dict[str, Any]:
    """Queue the job; an index that is made for it and cannot use it is taken back."""
    try:
        client.get("indexes", index)
        is_new = False
    except NotFoundError:
        client.put("indexes", index, body={})
        is_new = True
    try:
        job = client.post("indexes", index, "ingest", body=body)
    except EmbedserveError:
        if is_new:
            client.delete("indexes", index)
        raise
    if is_new:
        errors.print(f"Created index {index}.")
    return job


def follow_job(client: Client, job_id: str, *, is_quiet: bool) -> dict[str, Any]:
    """Show a job's progress until it ends."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=errors, disable=is_quiet, transient=True) as bar:
        task = bar.add_task("files", total=None)
        while True:
            job = fetch_job(client, job_id)
            progress = job["progress"]
            bar.update(task, completed=progress["files_done"], total=progress["files_total"])
            if job["status"] not in ("queued", "running"):
                return job
            time.sleep(POLL_S)


def _report(job: dict[str, Any], problems: list[dict[str, Any]]) -> None:
    counts = ", ".join(f"{count} {outcome}" for outcome, count in job["counts"].items())
    output.print(
        f"{job['status'].replace('_', ' ')}: {counts or 'no files'}; "
        f"{job['chunks_embedded']} chunks embedded"
    )
    by_code: dict[str, list[dict[str, Any]]] = {}
    for problem in problems:
        by_code.setdefault(problem["code"], []).append(problem)
    for code, files in sorted(by_code.items(), key=lambda item: -len(item[1])):
        _report_code(code, files, job["path"])
    if by_code:
        errors.print(f"`embedserve jobs show {job['id']}` lists them all.")


def _report_code(code: str, files: list[dict[str, Any]], root: str | None) -> None:
    """Print the files that share a reason: how many, why, what to do, and the first of them."""
    first = files[0]
    why = first["message"].removeprefix(f"Cannot read `{first['path']}`: ")
    errors.print(Text.assemble((f"{code} ({len(files)})", "yellow"), f": {why} {first['hint']}"))
    for file in files[:SHOWN_FILES]:
        path = file["path"]
        is_inside = root and path.startswith(root + "/")
        errors.print(Text(f"    {path[len(root) + 1 :] if root and is_inside else path}"))
    if len(files) > SHOWN_FILES:
        errors.print(f"    and {len(files) - SHOWN_FILES} more")


def _print_hit(rank: int, hit: dict[str, Any]) -> None:
    document = hit["document"]
    where = document["path"] + (f", page {hit['page']}" if hit["page"] else "")
    heading = " > ".join(hit["heading"]) or document["title"]
    head = Text.assemble(
        (f"{rank}. ", "bold"), (heading, "bold"), (f"  {hit['score']:.3f}", "green")
    )
    output.print(head)
    output.print(Text(f"   {where} [{hit['start']}:{hit['end']}]", style="dim"))
    body = "\n".join(f"   {line}" for line in hit["text"].splitlines())
    output.print(Text(body), end="\n\n")
