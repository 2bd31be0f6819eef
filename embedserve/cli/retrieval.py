"""Commands about documents: ingest a folder, query an index."""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.text import Text

from embedserve.cli.client import Client, Home, connect
from embedserve.cli.console import AsJson, errors, output, print_json
from embedserve.cli.job_display import leave, print_preview, run_to_end
from embedserve.cli.jobs import retry as retry_job
from embedserve.errors import EmbedserveError, InvalidRequestError, NotFoundError

IndexName = Annotated[str, typer.Option("--index", "-i", help="Name of the index.")]


def ingest(
    path: Annotated[
        Path | None,
        typer.Argument(help="Folder or file; without it, the sources of the index's definition."),
    ] = None,
    index: IndexName = "default",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only tell what would be done; nothing is written.")
    ] = False,
    retry: Annotated[
        bool, typer.Option("--retry", help="Only the files that failed in the index's last job.")
    ] = False,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Bring an index in step with a folder; the index is created when it does not exist."""
    if retry and (dry_run or path):
        raise InvalidRequestError("Give `--retry` alone: the last job says which files it is.")
    if retry:
        retry_job(_last_job(home, index), home=home, as_json=as_json)
        return
    target = path.expanduser().resolve() if path else None
    body: dict[str, Any] = {"path": str(target)} if target else {}
    with connect(home, roots=(target,) if target else (), is_long=not dry_run) as client:
        if dry_run:
            reply = client.post("indexes", index, "ingest", body={**body, "dry_run": True})
            print_json(reply) if as_json else print_preview(reply)
            return
        job = start_job(client, index, body)
        ended = run_to_end(client, job["id"], as_json=as_json)
    leave(ended)


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


def _last_job(home: Path | None, index: str) -> str:
    with connect(home) as client:
        latest = client.get("jobs", index=index, limit=200)["jobs"]
    jobs = [job for job in latest if job["kind"] == "ingest"]
    if not jobs:
        raise NotFoundError(f"Index `{index}` has had no job yet; ingest a folder first.")
    return str(jobs[0]["id"])


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


def _print_hit(rank: int, hit: dict[str, Any]) -> None:
    document = hit["document"]
    where = document["path"] + (f", page {hit['page']}" if hit["page"] else "")
    heading = " > ".join(hit["heading"]) or document["title"]
    head = Text.assemble(
        (f"{rank}. ", "bold"), (heading, "bold"), (f"  {hit['score']:.3f}", "green")
    )
    output.print(head)
    output.print(Text(f"   {where} [{hit['start']}:{hit['end']}]", style="dim"))
    if hit["places"] > 1:
        output.print(Text(f"   {_others(hit)}", style="dim"))
    body = "\n".join(f"   {line}" for line in hit["text"].splitlines())
    output.print(Text(body), end="\n\n")


def _others(hit: dict[str, Any]) -> str:
    """Tell where else the text stands: the next place by its path."""
    more = hit["places"] - 2
    path = hit["also_in"][0]["document"]["path"]
    return f"also in {path}" + (f" and {more} more" if more else "")
