"""The command that ingests a folder."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from embedserve.cli.client import Client, Home, Json, connect
from embedserve.cli.console import AsJson, errors, print_json
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
        begin = partial(client.post, "indexes", index, "ingest", body=body)
        job = start_job(client, index, begin)
        ended = run_to_end(client, job["id"], as_json=as_json)
    leave(ended)


def _last_job(home: Path | None, index: str) -> str:
    with connect(home) as client:
        latest = client.get("jobs", index=index, limit=200)["jobs"]
    jobs = [job for job in latest if job["kind"] == "ingest"]
    if not jobs:
        raise NotFoundError(f"Index `{index}` has had no job yet; ingest a folder first.")
    return str(jobs[0]["id"])


def start_job(client: Client, index: str, begin: Callable[[], Json]) -> Json:
    """Let `begin` queue a job; an index that is made for it and cannot use it is taken back."""
    try:
        client.get("indexes", index)
        is_new = False
    except NotFoundError:
        client.put("indexes", index, body={})
        is_new = True
    try:
        job = begin()
    except EmbedserveError:
        if is_new:
            client.delete("indexes", index)
        raise
    if is_new:
        errors.print(f"Created index {index}.")
    return job
