"""The command that keeps an index in step with a folder while it runs."""

import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from threading import Event
from typing import Annotated

import typer

from embedserve.cli.client import Client, Home, connect
from embedserve.cli.console import AsJson, errors, output, print_json
from embedserve.cli.job_display import follow_job
from embedserve.cli.retrieval import IndexName, start_job
from embedserve.errors import InvalidRequestError
from embedserve.ingest.watch import Settling, changes, folder_of

PATIENCE_S = 60.0


def watch(
    path: Annotated[
        Path | None,
        typer.Argument(help="Folder or file; without it, the folders of the index's definition."),
    ] = None,
    index: IndexName = "default",
    settle: Annotated[
        float, typer.Option(help="Seconds that changed files must have been left alone.")
    ] = 2.0,
    rescan: Annotated[
        float, typer.Option(help="Seconds between two rescans of everything; 0: none.")
    ] = 3600.0,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Bring an index in step with a folder, and again whenever something changes in it."""
    target = path.expanduser().resolve() if path else None
    with connect(home, roots=(target,) if target else (), is_long=True) as client:
        whole = {"path": str(target)} if target else {}
        roots = [str(target)] if target else _folders(client, index)
        seen = _changes(roots)
        earliest = next(seen)  # from here on nothing is missed
        _ingest(client, index, whole, as_json=as_json)
        errors.print(f"Watching {', '.join(roots)}; stop with Ctrl-C.")
        settling = {root: Settling(settle_s=settle, patience_s=PATIENCE_S) for root in roots}
        for body in _due(chain([earliest], seen), settling, whole, rescan_s=rescan):
            _ingest(client, index, body, as_json=as_json)


def _folders(client: Client, index: str) -> list[str]:
    sources = client.get("indexes", index)["definition"]["sources"]
    folders = [source["path"] for source in sources if source["path"]]
    if not folders:
        raise InvalidRequestError(f"Index `{index}` has no folder among its sources: name one.")
    return folders


def _due(
    seen: Iterable[set[str]],
    settling: Mapping[str, Settling],
    whole: dict[str, str],
    *,
    rescan_s: float,
) -> Iterator[dict[str, str]]:
    """Give what is to be ingested, whenever that is due."""
    rescan_at = time.monotonic() + rescan_s
    for found in seen:
        now = time.monotonic()
        for root, waiting in settling.items():
            waiting.add({p for p in found if p == root or p.startswith(root + os.sep)}, now)
            settled = waiting.take(now)
            if settled:
                is_folder = os.path.isdir(root)
                yield {"path": folder_of(settled, root) if is_folder else root}
        if rescan_s and now >= rescan_at:
            yield whole
            rescan_at = time.monotonic() + rescan_s


def _changes(roots: Sequence[str]) -> Iterator[set[str]]:
    """Give what changes; where the system cannot watch, nothing every second, and say so."""
    stop = Event()
    try:
        yield from changes(roots, stop)
    except OSError as error:
        errors.print(f"The system cannot watch ({error}); only rescans are made.", style="yellow")
        while not stop.wait(1):
            yield set()


def _ingest(client: Client, index: str, body: dict[str, str], *, as_json: bool) -> None:
    begin = partial(client.post, "indexes", index, "ingest", body=body)
    job = start_job(client, index, begin)
    job = follow_job(client, job["id"], is_quiet=as_json)
    if as_json:
        print_json(job)
        return
    counts = ", ".join(f"{count} {outcome}" for outcome, count in job["counts"].items())
    output.print(
        f"{job['path'] or index}: {job['status'].replace('_', ' ')}, {counts or 'nothing'}"
    )
    if job["error"]:
        errors.print(job["error"], style="red")
