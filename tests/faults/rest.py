"""What a catalog says of work in progress, asked from outside of the server."""

import sqlite3
import time
from contextlib import closing
from pathlib import Path
from typing import Any

from tests.live import LiveServer

FILES_DONE = "SELECT coalesce(sum(files), 0) FROM job_counts"
BUSY = "SELECT count(*) FROM jobs WHERE status IN ('queued', 'running')"
WAITING = "SELECT count(*) FROM changes"
BUILDING = "SELECT count(*) FROM generations WHERE status = 'building'"
DROPPED = "SELECT count(*) FROM dropped_generations"
NEW_HASHES = "SELECT count(*) FROM new_hashes"

PATIENCE = 15
"""A long run gives way to others on a busy machine: all takes as long as it takes."""
REST_S = 60 * PATIENCE


def ask(home: Path, question: str) -> int:
    """Return one number from the catalog of a server that runs."""
    path = f"file:{home / 'catalog.sqlite3'}?mode=ro"
    with closing(sqlite3.connect(path, uri=True, timeout=20)) as connection:
        number: int = connection.execute(question).fetchone()[0]
    return number


def patient(home: Path, folder: Path) -> LiveServer:
    """Start a server that may read `folder`."""
    return LiveServer(home, allow=[folder], patience=PATIENCE)


def wait_for_rest(server: LiveServer) -> None:
    """Wait until a server has nothing left to do."""
    deadline = time.monotonic() + REST_S
    while left := [q for q in (BUSY, WAITING, BUILDING, DROPPED) if ask(server.home, q)]:
        assert time.monotonic() < deadline, f"{left} is not over\n{server.log()[-3000:]}"
        time.sleep(0.02)


def ingest(server: LiveServer, index: str, folder: Path) -> dict[str, Any]:
    """Ingest a folder into an index that exists, wait for rest, and return the job."""
    reply = server.http.post(f"/indexes/{index}/ingest", json={"path": str(folder)})
    assert reply.status_code == 202, reply.text
    wait_for_rest(server)
    job: dict[str, Any] = server.http.get(f"/jobs/{reply.json()['id']}").json()
    return job
