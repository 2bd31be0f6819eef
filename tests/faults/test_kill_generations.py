"""`kill -9` while an index gets a new generation or another model: none is left over, all is right.

For a longer run: `scripts/test tests/faults/test_kill_generations.py --kill-rounds 100`.
"""

import logging
import random
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.engine_app import writable_home
from tests.faults.family import CHROMA, children, kill_all, kill_child, wait_until_nothing_runs_in
from tests.faults.rest import (
    BUILDING,
    BUSY,
    NEW_HASHES,
    REST_S,
    WAITING,
    ask,
    ingest,
    patient,
    wait_for_rest,
)
from tests.faults.wholeness import (
    chunks_not_found,
    contents,
    differences,
    traces,
    vector_index_faults,
)
from tests.live import LiveServer

logger = logging.getLogger(__name__)

INDEX = "notes"
CHUNKS = 1200
"""More than a batch of the worker, and more than two pages of a model change. Their vectors cost
nothing: it is not the engine that is killed here."""
CHUNKING = {"max_tokens": 16}
KILLS_FOR_EACH = 10
"""So many of `--kill-rounds` stand for one kill of each kind here."""
TRIES = 20
LONG_S = 7200

Begin = Callable[[LiveServer], None]


class Cuts:
    """A home with one index, killed in the middle of what is done to it."""

    def __init__(self, home: Path, documents: Path, chance: random.Random) -> None:
        self.home = home
        self.documents = documents
        self.model = "all-minilm"
        self._models = 0
        self._chance = chance
        self.server = patient(home, documents)

    def fill(self) -> None:
        """Ingest texts that are one chunk each."""
        self.documents.mkdir()
        texts = [f"Note number {n} is about the word w{n**2 % 997} alone." for n in range(CHUNKS)]
        (self.documents / "notes.txt").write_text("\n\n".join(texts))
        self.define(self.server)
        job = ingest(self.server, INDEX, self.documents)
        assert job["chunks_embedded"] > CHUNKS // 2, job

    def define(self, server: LiveServer) -> None:
        """Ask for the index with its present model."""
        body = {"model": self.model, "chunking": CHUNKING}
        server.http.put(f"/indexes/{INDEX}", json=body).raise_for_status()

    def rebuild(self, server: LiveServer) -> None:
        """Begin a new generation."""
        with server.http.stream("POST", f"/indexes/{INDEX}/rebuild") as reply:
            next(reply.iter_lines())

    def take_another_model(self, server: LiveServer) -> None:
        """Begin to embed everything anew: each model has a prompt of its own, never used before."""
        self._models += 1
        prompt = f"note of kind {self._models}: "
        self.model = f"marked-{self._models}"
        # One prompt for both, so that a chunk is found by the text that was embedded for it.
        parameters = {"query_prompt": prompt, "document_prompt": prompt}
        body = {"model": self.model, "from": "all-minilm", "parameters": parameters}
        server.http.post("/api/create", json={**body, "stream": False}).raise_for_status()
        self.define(server)

    def cut(self, begin: Begin, middle: str, victim: str) -> None:
        """Begin something and kill `victim` while the catalog says that it is in the `middle`.

        What is over before that is begun again.
        """
        for _ in range(TRIES):
            begin(self.server)
            self._wait_for(middle)
            time.sleep(self._chance.uniform(0, 0.05))
            is_in_the_middle = bool(ask(self.home, middle))
            if is_in_the_middle:
                self._kill(victim)
            wait_for_rest(self.server)
            if is_in_the_middle:
                return
        raise AssertionError(f"{begin.__name__} is always over before a kill")

    def _wait_for(self, question: str) -> None:
        deadline = time.monotonic() + REST_S
        while not ask(self.home, question) and time.monotonic() < deadline:
            if not any(ask(self.home, other) for other in (BUSY, BUILDING, WAITING)):
                return
            time.sleep(0.002)

    def _kill(self, victim: str) -> None:
        if victim == "everything":
            kill_all(self.server.pid, self._chance)
            self.server.process.wait()
        elif victim == "server":
            self.server.process.kill()
            self.server.process.wait()
        else:
            [chroma] = children(self.server.pid, CHROMA)
            assert kill_child(chroma, self.server.pid)
            return
        self.server.http.close()
        wait_until_nothing_runs_in(self.home)
        self.server = patient(self.home, self.documents)


@pytest.mark.timeout(LONG_S)
def test_rebuilds_and_model_changes_survive_kills(
    quick_models: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    count = max(1, request.config.getoption("--kill-rounds") // KILLS_FOR_EACH)
    chance = random.Random(request.config.getoption("--kill-seed"))
    home = writable_home(quick_models.parent, tmp_path / "home")
    cuts = Cuts(home, tmp_path / "documents", chance)
    try:
        cuts.fill()
        for number in range(count):
            victims = [chance.choice(("server", "chroma", "everything")) for _ in range(3)]
            logger.info("%d: %s", number + 1, victims)
            cuts.cut(cuts.rebuild, BUILDING, victims[0])
            cuts.cut(cuts.take_another_model, NEW_HASHES, victims[1])
            # The new model serves, and its vectors are on their way.
            cuts.cut(cuts.take_another_model, WAITING, victims[2])
        report = cuts.server.http.get(f"/indexes/{INDEX}").json()
        assert report["model"] == cuts.model, report
        assert chunks_not_found(cuts.server, INDEX) == []
    finally:
        cuts.server.stop()
    assert traces(home) == []
    assert vector_index_faults(home, INDEX) == []

    fresh = writable_home(home, tmp_path / "fresh")
    with patient(fresh, cuts.documents) as server:
        cuts.define(server)
        ingest(server, INDEX, cuts.documents)
    assert differences(contents(home, INDEX), contents(fresh, INDEX)) == []
