"""A job on the terminal: how far it is, and what came out."""

import time
from collections import deque
from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import Any

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.text import Text

from embedserve.cli.client import Client, Json
from embedserve.cli.console import errors, output, print_json, print_table
from embedserve.errors import EmbedserveError

POLL_S = 0.2
RATE_S = 5.0
"""Over which rates are shown: long enough to be read."""
PAGE = 1000
SHOWN_FILES = 4
SHOWN_PREVIEW = 20
SUMMARY = ("OUTCOME", "CODE", "FILES", "FILE", "REASON")
TROUBLES = ("failed", "skipped")
ENDED = ("succeeded", "succeeded_with_errors", "failed", "cancelled")


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


def run_to_end(client: Client, job_id: str, *, as_json: bool, is_ours: bool = True) -> Json:
    """Show a job until it ends, then what came out; an interrupt cancels it where it `is_ours`."""
    try:
        job = follow_job(client, job_id, is_quiet=as_json)
    except KeyboardInterrupt:
        if is_ours:
            client.post("jobs", job_id, "cancel")
            errors.print("Cancelled; what was ingested so far stays.")
        raise
    problems = list(file_results(client, job_id, TROUBLES))
    if as_json:
        print_json({**job, "files": problems})
    else:
        _report(job, problems)
    return job


def leave(job: Json) -> None:
    """End the command as a job ended: 4 when files failed, an error when all of it did."""
    if job["status"] in ("failed", "cancelled"):
        raise EmbedserveError(f"Job {job['id']} {job['status']}. {job['error'] or ''}".strip())
    if job["status"] == "succeeded_with_errors":
        raise typer.Exit(4)


def print_preview(reply: Json) -> None:
    """Print what a job would have to do."""
    counts = ", ".join(f"{count} {outcome}" for outcome, count in reply["counts"].items())
    size = reply["bytes_total"] / 1e6
    output.print(f"would be: {counts or 'no files'}; {size:.1f} MB to read")
    rows = [
        [file["outcome"], file["path"], file["code"] or "", file["message"] or ""]
        for file in reply["files"][:SHOWN_PREVIEW]
    ]
    if rows:
        print_table(rows, "OUTCOME", "FILE", "CODE", "REASON")
    left_out = len(reply["files"]) - len(rows) + reply["files_left_out"]
    if left_out:
        errors.print(f"and {left_out} more; `--json` lists them.")


class Rates:
    """Sums that grow, as rates over the last seconds."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, Json]] = deque()

    def per_second(self, progress: Json, names: Sequence[str], now: float) -> dict[str, float]:
        """Note sums and return their growth a second by name; 0 before there are two of them."""
        self._seen.append((now, progress))
        while len(self._seen) > 2 and now - self._seen[0][0] > RATE_S:
            self._seen.popleft()
        first_s, first = self._seen[0]
        if now <= first_s:
            return dict.fromkeys(names, 0.0)
        return {name: (progress[name] - first[name]) / (now - first_s) for name in names}


def follow_job(client: Client, job_id: str, *, is_quiet: bool) -> Json:
    """Show how far a job is until it ends, and return it."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=20),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[rates]}"),
    )
    rates = Rates()
    told: str | None = None
    with Progress(*columns, console=errors, disable=is_quiet, transient=True) as bar:
        task = bar.add_task("files", total=None, rates="")
        while True:
            job = fetch_job(client, job_id)
            progress = job["progress"]
            bar.update(
                task,
                description=progress["stage"] or job["status"],
                completed=progress["files_done"],
                total=progress["files_total"],
                rates=status_line(job, rates, time.monotonic()),
            )
            if job["status"] in ENDED:
                return job
            if job.get("problem") not in (None, told):
                told = job["problem"]
                errors.print(Text(f"It waits: {told} It goes on by itself.", style="yellow"))
            time.sleep(POLL_S)


def status_line(job: Json, rates: Rates, now: float) -> str:
    """Return speed, failures and the time that is left, as far as they are known."""
    progress = job["progress"]
    speed = rates.per_second(progress, ("chunks", "tokens"), now)
    parts = [f"{speed['chunks']:.0f} chunks/s", f"{speed['tokens']:.0f} tokens/s"]
    parts += [f"{job['counts'][name]} {name}" for name in TROUBLES if job["counts"].get(name)]
    if progress["seconds_left"] is not None:
        parts.append(f"{timedelta(seconds=progress['seconds_left'])} left")
    return ", ".join(parts)


def _report(job: dict[str, Any], problems: list[dict[str, Any]]) -> None:
    counts = ", ".join(f"{count} {outcome}" for outcome, count in job["counts"].items())
    output.print(
        f"{job['status'].replace('_', ' ')}: {counts or 'no files'}; "
        f"{job['chunks_embedded']} chunks embedded"
    )
    if problems:
        print_table(list(_summary(problems, job["path"])), *SUMMARY, to=errors)
        errors.print(f"`embedserve jobs show {job['id']}` lists them all.")


def _summary(problems: Sequence[Json], root: str | None) -> Iterator[list[str]]:
    """Give a table of what gave no chunks: what failed first, then the most frequent reasons."""
    by_code: dict[tuple[str, str], list[Json]] = {}
    for problem in problems:
        by_code.setdefault((problem["outcome"], problem["code"]), []).append(problem)
    for (outcome, code), files in sorted(
        by_code.items(), key=lambda one: (one[0][0], -len(one[1]))
    ):
        head, last = [outcome, code, str(len(files))], ""
        for file in files[:SHOWN_FILES]:
            why = file["message"].removeprefix(f"Cannot read `{file['path']}`: ")
            reason = f"{why} {file['hint'] or ''}".strip()
            yield [*head, _below(root, file["path"]), "" if reason == last else reason]
            head, last = ["", "", ""], reason
        if len(files) > SHOWN_FILES:
            yield [*head, f"and {len(files) - SHOWN_FILES} more", ""]


def _below(root: str | None, path: str) -> str:
    return path.removeprefix(f"{root}/") if root else path
