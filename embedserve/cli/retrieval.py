"""Commands about documents: ingest a folder, query an index."""

import time
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from embedserve.cli.client import Client, Home, connect
from embedserve.cli.console import AsJson, errors, output, print_json
from embedserve.errors import EmbedserveError, NotFoundError

POLL_S = 0.2
SHOWN_PROBLEMS = 20

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
    with connect(home, roots=(target,) if target else ()) as client:
        _create_if_missing(client, index)
        body = {"path": str(target)} if target else {}
        job = client.post(f"/indexes/{index}/ingest", body)
        try:
            job = _follow(client, job["id"], is_quiet=as_json)
        except KeyboardInterrupt:
            client.post(f"/jobs/{job['id']}/cancel")
            errors.print("Cancelled; what was ingested so far stays.")
            raise
        problems = client.get(f"/jobs/{job['id']}", outcome=["failed", "skipped"], limit=1000)[
            "files"
        ]
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
        reply = client.post(f"/indexes/{index}/query", {"query": question, "k": k})
    if as_json:
        print_json(reply)
        return
    for warning in reply["warnings"]:
        errors.print(f"Note: {warning}", style="yellow", markup=False)
    if not reply["hits"]:
        errors.print("Nothing found: the index is empty.")
    for rank, hit in enumerate(reply["hits"], start=1):
        _print_hit(rank, hit)


def _create_if_missing(client: Client, index: str) -> None:
    try:
        client.get(f"/indexes/{index}")
    except NotFoundError:
        client.put(f"/indexes/{index}", {})
        errors.print(f"Created index {index}.", markup=False, highlight=False)


def _follow(client: Client, job_id: str, *, is_quiet: bool) -> dict[str, Any]:
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
            job = client.get(f"/jobs/{job_id}", limit=0)
            progress = job["progress"]
            bar.update(task, completed=progress["files_done"], total=progress["files_total"])
            if job["status"] not in ("queued", "running"):
                return job
            time.sleep(POLL_S)


def _report(job: dict[str, Any], problems: list[dict[str, Any]]) -> None:
    counts = ", ".join(f"{count} {outcome}" for outcome, count in job["counts"].items())
    output.print(
        f"{job['status'].replace('_', ' ')}: {counts or 'no files'}; "
        f"{job['chunks_embedded']} chunks embedded",
        highlight=False,
    )
    if not problems:
        return
    table = Table("FILE", "CODE", "REASON", box=None)
    for problem in problems[:SHOWN_PROBLEMS]:
        reason = f"{problem['message']} {problem['hint'] or ''}".strip()
        table.add_row(Text(problem["path"]), Text(problem["code"]), Text(reason))
    errors.print(table)
    if len(problems) > SHOWN_PROBLEMS:
        errors.print(
            f"... and {len(problems) - SHOWN_PROBLEMS} more: "
            f"`embedserve jobs show {job['id']}` lists them all.",
            markup=False,
        )


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
