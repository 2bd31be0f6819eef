"""`kill -9` at random moments of all that is done to an index; then all is as if it had not been.

For a longer run: `scripts/test tests/faults/test_kill.py --kill-rounds 100 --kill-seed 7`.
"""

import logging
import random
from pathlib import Path

import pytest

from tests.faults.family import CHROMA, WORKER, children, wait_until_nothing_runs_in
from tests.faults.moving_folder import MovingFolder, sources
from tests.faults.rest import ingest, patient, wait_for_rest
from tests.faults.rounds import INDEX, KillRounds, send
from tests.faults.wholeness import (
    chunks_not_found,
    contents,
    differences,
    traces,
    vector_index_faults,
)
from tests.live import LiveServer

logger = logging.getLogger(__name__)

FILES = 16
"""At most: twice as many as there are kills, so that a short run has little to read."""
LONG_S = 7200


@pytest.mark.data
@pytest.mark.timeout(LONG_S)
def test_an_index_survives_kills_of_all_its_processes(
    data: Path, home: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    count: int = request.config.getoption("--kill-rounds")
    seed: int = request.config.getoption("--kill-seed")
    # Folder and kills draw at the same time, so each from a source of its own.
    folder = MovingFolder(tmp_path / "documents", sources(data), random.Random(f"folder {seed}"))
    folder.fill(min(FILES, 2 * count))
    with KillRounds(home, folder, random.Random(f"kills {seed}")) as rounds:
        rounds.run(count)
        rounds.settle()
        logger.info("%d kills: %s; changes: %s", count, dict(rounds.kills), dict(folder.counts))
        server = rounds.server()
        assert_at_rest(server, folder.root)
        assert len(children(server.pid)) == len(children(server.pid, CHROMA)) + len(
            children(server.pid, WORKER)
        )
    assert server.process.returncode == 0, server.log()
    wait_until_nothing_runs_in(home)
    assert traces(home) == []
    assert vector_index_faults(home, INDEX) == []

    fresh = fresh_home(home)
    with patient(fresh, folder.root) as server:
        server.http.put(f"/indexes/{INDEX}", json={}).raise_for_status()
        ingest(server, INDEX, folder.root)
        for name, content in rounds.sent.items():
            send(server, {}, name, content)
        wait_for_rest(server)
        assert_at_rest(server, folder.root)
    assert differences(contents(home, INDEX), contents(fresh, INDEX)) == []


def assert_at_rest(server: LiveServer, folder: Path) -> None:
    """Nothing is left to do, the server finds its index whole, and every chunk finds itself."""
    job = ingest(server, INDEX, folder)
    assert set(job["counts"]) <= {"unchanged", "skipped", "failed"}, job["counts"]
    assert (job["chunks_embedded"], server.counts(INDEX)["pending"]) == (0, 0)
    reply = server.http.post(f"/indexes/{INDEX}/check")
    assert '"status":"ok"' in reply.text.splitlines()[-1].replace(" ", ""), reply.text
    assert chunks_not_found(server, INDEX) == []


def fresh_home(home: Path) -> Path:
    """Return an empty home with the models of another."""
    fresh = home.with_name("fresh")
    fresh.mkdir()
    (fresh / "models").symlink_to((home / "models").resolve())
    return fresh
