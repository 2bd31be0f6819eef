"""Freed memory goes back to the system, and whoever frees much says so."""

import ctypes
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from embedserve.api.body import Fields
from embedserve.api.hot import HotPath
from embedserve.api.replies import Reply, Services
from embedserve.engine.encoder import Encoder
from embedserve.services.memory import FreedMemory, resident_bytes
from embedserve.services.metrics import Metrics
from embedserve.services.residency import Residency
from embedserve.services.residents import MIB, Residents
from embedserve.store.catalog import Catalog
from tests.fake_house import Models, served
from tests.fakes import MemoryVectorIndex
from tests.live import LiveServer
from tests.store_samples import wait_until
from tests.test_services_residents import CANARY, UsedEncoder

LARGE = 64 * 1024


class Told:
    """Counts how often it is told that much was freed."""

    def __init__(self) -> None:
        self.times = 0

    def tell(self) -> None:
        self.times += 1


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
def client(told: Told) -> Iterator[TestClient]:
    """Give a hot route whose answer is as long as it is asked to be, before another application."""

    async def hot(services: Services, fields: Fields, timeout_s: float | None) -> Reply:
        return Reply(b"a" * (fields.whole("answer") or 0), [])

    async def echo(request: Request) -> PlainTextResponse:
        return PlainTextResponse(str(len(await request.body())))

    services = cast(Services, SimpleNamespace(metrics=Metrics(), freed=told))
    others = Starlette(routes=[Route("/other", echo, methods=["POST"])])
    app = HotPath(others, routes={"/hot": hot}, named={}, services=services, max_request_bytes=MIB)
    with TestClient(app) as client:
        yield client


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/hot", b'{"text": "%s"}' % (b"a" * LARGE)),
        ("/hot", b'{"answer": %d}' % LARGE),
        ("/hot", b"[" * LARGE),
        ("/other", b"a" * LARGE),
    ],
)
def test_large_requests_answers_and_refusals_tell_that_much_was_freed(
    client: TestClient, told: Told, path: str, body: bytes
) -> None:
    client.post(path, content=body)
    assert told.times == 1


@pytest.mark.parametrize("path", ["/hot", "/other"])
def test_small_requests_tell_nothing(client: TestClient, told: Told, path: str) -> None:
    client.post(path, content=b'{"answer": 9}')
    client.post(path, content=b"{")
    assert told.times == 0


def test_jobs_tell_at_their_end_also_when_they_fail(tmp_path: Path, told: Told) -> None:
    models = Models()
    models.freed = cast(FreedMemory, told)
    with Catalog(tmp_path / "c") as catalog:
        artefact = models.small.spec.artefact
        catalog.indexes.create("notes", "{}", model="small", artefact=artefact, dimensions=8)
        job = catalog.jobs.create("notes", str(tmp_path / "absent")).id
        with served(catalog, models, MemoryVectorIndex()):
            wait_until(lambda: told.times, within_s=20)
            assert catalog.jobs.get(job).status == "failed"
    assert told.times == 1


def test_models_tell_when_they_come_and_when_they_are_gone(told: Told) -> None:
    residents = Residents(Residency(keep_alive_s=0.05), cast(FreedMemory, told))
    encoder = UsedEncoder("one")
    residents.add("one", cast(Encoder, encoder), CANARY, MIB)
    assert told.times == 1
    wait_until(lambda: not residents.loaded(), within_s=10)
    assert told.times == 1, "somebody still has it"
    del encoder
    wait_until(lambda: told.times == 2, within_s=10)
    residents.close()


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's heap")
def test_small_blocks_that_were_freed_go_back_to_the_system() -> None:
    libc = ctypes.CDLL(None)
    libc.malloc.restype, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
    blocks = []
    for _ in range(64 * 1024):
        blocks.append(libc.malloc(1000))
        ctypes.memset(blocks[-1], 1, 1000)
    last = blocks.pop()  # holds the others in the heap
    for block in blocks:
        libc.free(block)
    kept = resident_bytes()
    freed = FreedMemory()
    freed.tell()
    freed.tell()
    wait_until(lambda: freed.times_given_back, within_s=20)
    assert kept - resident_bytes() > 32 * MIB
    assert freed.times_given_back == 1
    freed.tell()
    wait_until(lambda: freed.times_given_back == 2, within_s=20)
    freed.close()
    libc.free(last)


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's heap")
def test_server_keeps_nothing_of_a_long_text_that_it_tokenized(server: LiveServer) -> None:
    before = resident_bytes(server.pid)
    reply = server.http.post("/api/tokenize", json={"model": "all-minilm", "input": "a " * 100_000})
    assert reply.json()["count"] == 100_002
    # It took 45 MB, in blocks too small for glibc to give back by itself.
    wait_until(lambda: resident_bytes(server.pid) < before + 16 * MIB, within_s=20)
