"""Commands about ingestion jobs: list, show, cancel."""

from collections.abc import Iterator, Sequence
from typing import Annotated

import typer
from rich.text import Text

from embedserve.cli.client import Client, Home, Json, connect
from embedserve.cli.console import AsJson, errors, output, print_json, print_result, print_table

app = typer.Typer(no_args_is_help=True)

PAGE = 1000

JobId = Annotated[str, typer.Argument(help="Id of the job, as `jobs list` prints it.")]


@app.command("list")
def list_jobs(
    limit: Annotated[int, typer.Option(help="Jobs to show.")] = 20,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """List jobs, newest first."""
    with connect(home) as client:
        jobs = client.get("jobs", limit=limit)["jobs"]
    if as_json:
        print_json({"jobs": jobs})
        return
    if not jobs:
        errors.print("No job yet.")
        return
    rows = []
    for job in jobs:
        progress = job["progress"]
        files = f"{progress['files_done']}/{progress['files_total'] or '?'}"
        path = job["path"] or ("(sources)" if job["kind"] == "ingest" else "(another model)")
        rows.append([job["id"], job["index"], job["status"], files, job["created_at"], path])
    print_table(rows, "ID", "INDEX", "STATUS", "FILES", "CREATED", "PATH")


@app.command("show")
def show(
    job_id: JobId,
    every: Annotated[
        bool, typer.Option("--all", help="Every file, not only those without chunks.")
    ] = False,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Describe one job and what it did to each file."""
    outcomes = [] if every else ["failed", "skipped"]
    with connect(home) as client:
        job = fetch_job(client, job_id)
        job["files"] = list(file_results(client, job_id, outcomes))
    if as_json:
        print_json(job)
        return
    counts = ", ".join(f"{count} {outcome}" for outcome, count in job["counts"].items())
    output.print(f"{job['status']} on index {job['index']}: {counts}")
    if job["error"]:
        output.print(Text(job["error"], style="red"))
    rows = []
    for file in job["files"]:
        reason = " ".join(filter(None, [file["message"], file["hint"], *file["warnings"]]))
        chunks, code = str(file["chunks"]), file["code"] or ""
        rows.append([file["outcome"], chunks, file["path"], code, reason])
    print_table(rows, "OUTCOME", "CHUNKS", "FILE", "CODE", "REASON")


@app.command("cancel")
def cancel(job_id: JobId, home: Home = None, as_json: AsJson = False) -> None:
    """Stop a job after the files in hand; what it ingested stays."""
    with connect(home) as client:
        job = client.post("jobs", job_id, "cancel")
    print_result(job, f"job {job['id']}: {job['status']}", as_json=as_json)


def fetch_job(client: Client, job_id: str) -> Json:
    """Return a job without its files."""
    job = client.get("jobs", job_id, limit=0)
    return {key: value for key, value in job.items() if key not in ("files", "next_offset")}


def file_results(client: Client, job_id: str, outcomes: Sequence[str]) -> Iterator[Json]:
    """Give everything that a job did to files with one of the outcomes; no outcomes: all."""
    offset, chosen = 0, list(outcomes)
    while True:
        page = client.get("jobs", job_id, limit=PAGE, offset=offset, outcome=chosen)
        if not page["files"]:
            return
        yield from page["files"]
        offset += len(page["files"])
