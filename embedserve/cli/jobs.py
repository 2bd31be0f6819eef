"""Commands about ingestion jobs: list, show, watch, cancel, try again."""

from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from embedserve.cli.client import Home, connect
from embedserve.cli.console import AsJson, errors, output, print_json, print_result, print_table
from embedserve.cli.job_display import fetch_job, file_results, leave, run_to_end

app = typer.Typer(no_args_is_help=True)

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


@app.command("watch")
def watch(job_id: JobId, home: Home = None, as_json: AsJson = False) -> None:
    """Follow a job to its end; leaving does not cancel it. Without a server it is carried out."""
    with connect(home, roots=roots_of(home, job_id), is_long=True) as client:
        ended = run_to_end(client, job_id, as_json=as_json, is_ours=False)
    leave(ended)


@app.command("retry")
def retry(job_id: JobId, home: Home = None, as_json: AsJson = False) -> None:
    """Start a job about only the files that failed in one that has ended, and follow it."""
    with connect(home, roots=roots_of(home, job_id), is_long=True) as client:
        job = client.post("jobs", job_id, "retry")
        ended = run_to_end(client, job["id"], as_json=as_json)
    leave(ended)


@app.command("cancel")
def cancel(job_id: JobId, home: Home = None, as_json: AsJson = False) -> None:
    """Stop a job within a second; what it ingested stays."""
    with connect(home) as client:
        job = client.post("jobs", job_id, "cancel")
    print_result(job, f"job {job['id']}: {job['status']}", as_json=as_json)


def roots_of(home: Path | None, job_id: str) -> tuple[Path, ...]:
    """Return what a command has to be allowed to read for a job that was begun before."""
    with connect(home) as client:
        path = fetch_job(client, job_id)["path"]
    return (Path(path),) if path and path.startswith("/") else ()  # else of what was sent
