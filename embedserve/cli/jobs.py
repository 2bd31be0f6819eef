"""Commands about ingestion jobs: list, show, cancel."""

from typing import Annotated

import typer
from rich.text import Text

from embedserve.cli.client import Home, connect
from embedserve.cli.console import AsJson, errors, output, plain_table, print_json

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
        jobs = client.get("/jobs", limit=limit)["jobs"]
    if as_json:
        print_json({"jobs": jobs})
        return
    if not jobs:
        errors.print("No job yet.")
        return
    table = plain_table("ID", "INDEX", "STATUS", "FILES", "CREATED", "PATH")
    for job in jobs:
        progress = job["progress"]
        files = f"{progress['files_done']}/{progress['files_total'] or '?'}"
        path = Text(job["path"] or "(sources)")
        table.add_row(job["id"], job["index"], job["status"], files, job["created_at"], path)
    output.print(table)


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
        job = client.get(f"/jobs/{job_id}", limit=10_000, outcome=outcomes)
    if as_json:
        print_json(job)
        return
    counts = ", ".join(f"{count} {outcome}" for outcome, count in job["counts"].items())
    output.print(f"{job['status']} on index {job['index']}: {counts}", highlight=False)
    if job["error"]:
        output.print(Text(job["error"], style="red"))
    table = plain_table("OUTCOME", "CHUNKS", "FILE", "CODE", "REASON")
    for file in job["files"]:
        reason = f"{file['message'] or ''} {file['hint'] or ''}".strip()
        texts = [Text(file["path"]), Text(file["code"] or ""), Text(reason)]
        table.add_row(file["outcome"], str(file["chunks"]), *texts)
    output.print(table)


@app.command("cancel")
def cancel(job_id: JobId, home: Home = None, as_json: AsJson = False) -> None:
    """Stop a job after the files in hand; what it ingested stays."""
    with connect(home) as client:
        job = client.post(f"/jobs/{job_id}/cancel")
    if as_json:
        print_json(job)
    else:
        output.print(f"job {job['id']}: {job['status']}", markup=False, highlight=False)
