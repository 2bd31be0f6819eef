"""The contract of a vector index, run on Chroma and on the one that tests use."""

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread
from typing import cast

import numpy as np
import pytest

from embedserve.errors import VectorStoreError, VectorStoreUnreachableError
from embedserve.store.chroma import ChromaIndex
from embedserve.store.chroma_process import ChromaProcess
from embedserve.store.late_vector_index import LateVectorIndex
from embedserve.store.vector_index import VectorIndex
from embedserve.types import Vectors
from tests.fakes import MemoryVectorIndex, answering
from tests.store_samples import unit_vectors

COSINE_TOLERANCE = 1e-5  # both sides sum float32 products, in another order


@pytest.fixture(scope="module")
def chroma_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("chroma")
    process = ChromaProcess(folder / "chroma", folder / "chroma.log", timeout_s=30)
    try:
        assert process.start().status == "up"
        yield process.url
    finally:
        process.stop()


@pytest.fixture(params=["chroma", "late", "memory"])
def vector_index(request: pytest.FixtureRequest) -> Iterator[VectorIndex]:
    if request.param == "memory":
        yield MemoryVectorIndex()
        return
    url = request.getfixturevalue("chroma_url")
    chroma: ChromaIndex | LateVectorIndex = ChromaIndex(lambda: url, timeout_s=30)
    if request.param == "late":
        chroma = LateVectorIndex("chroma", lambda: url, timeout_s=30, prefix="embedserve")
    yield chroma
    for key in (1, 2):
        chroma.drop(key)
    chroma.close()


def test_what_was_upserted_is_found_with_its_cosine(vector_index: VectorIndex) -> None:
    vectors = unit_vectors(40)
    vector_index.upsert(1, np.arange(100, 140), vectors)
    hits = vector_index.search(1, vectors[7], count=5)
    assert [hit.id for hit in hits] == (100 + np.argsort(-(vectors @ vectors[7]))[:5]).tolist()
    expected = np.sort(vectors @ vectors[7])[::-1][:5]
    assert np.allclose([hit.score for hit in hits], expected, atol=COSINE_TOLERANCE)
    assert all(hit.score <= 1 for hit in hits)


def test_asking_for_more_than_there_is_gives_all(vector_index: VectorIndex) -> None:
    vector_index.upsert(1, np.array([5, 6]), unit_vectors(2))
    assert len(vector_index.search(1, unit_vectors(1)[0], count=50)) == 2


def test_an_upsert_replaces_and_keys_are_apart(vector_index: VectorIndex) -> None:
    vectors = unit_vectors(3)
    vector_index.upsert(1, np.array([1]), vectors[:1])
    vector_index.upsert(2, np.array([1]), vectors[1:2])
    vector_index.upsert(1, np.array([1]), vectors[2:])
    [hit] = vector_index.search(1, vectors[2], count=5)
    assert hit.score == pytest.approx(1, abs=COSINE_TOLERANCE)
    [other] = vector_index.search(2, vectors[1], count=5)
    assert other.score == pytest.approx(1, abs=COSINE_TOLERANCE)


def test_deleted_ids_are_gone_and_unknown_ones_do_not_matter(vector_index: VectorIndex) -> None:
    vectors = unit_vectors(3)
    vector_index.upsert(1, np.array([1, 2, 3]), vectors)
    vector_index.delete(1, [2, 999])
    assert vector_index.ids(1).tolist() == [1, 3]
    assert vector_index.count(1) == 2
    assert 2 not in [hit.id for hit in vector_index.search(1, vectors[1], count=3)]


def test_stored_vectors_can_be_read_back(vector_index: VectorIndex) -> None:
    rows = unit_vectors(3)
    vector_index.upsert(21, np.array([9, 2, 5]), rows)
    found = vector_index.vectors(21, np.array([9, 2, 77]))
    assert found.ids.tolist() == [2, 9]
    # Chroma scales them to unit length once more, which may change a last bit.
    np.testing.assert_allclose(found.vectors, rows[[1, 0]], atol=1e-6)
    assert len(vector_index.vectors(22, np.array([1])).ids) == 0


def test_a_key_that_holds_nothing_is_no_error(vector_index: VectorIndex) -> None:
    vector_index.delete(2, [1])
    vector_index.drop(2)
    vector_index.upsert(2, np.empty(0, np.int64), unit_vectors(0))
    assert not vector_index.search(2, unit_vectors(1)[0], count=3)
    assert vector_index.ids(2).tolist() == []
    assert vector_index.count(2) == 0


def test_a_dropped_key_is_empty_and_can_be_filled_again(vector_index: VectorIndex) -> None:
    vectors = unit_vectors(2)
    vector_index.upsert(1, np.array([1, 2]), vectors)
    vector_index.drop(1)
    assert not vector_index.search(1, vectors[0], count=3)
    vector_index.upsert(1, np.array([3]), vectors[:1])
    assert vector_index.ids(1).tolist() == [3]


def test_ids_and_upserts_beyond_one_page_are_whole(vector_index: VectorIndex) -> None:
    count = 6000  # more than Chroma takes or gives at once
    vector_index.upsert(1, np.arange(1, count + 1), unit_vectors(count))
    assert vector_index.ids(1).tolist() == list(range(1, count + 1))


def test_a_handle_survives_the_loss_of_its_collection(chroma_url: str) -> None:
    mine, other = (ChromaIndex(lambda: chroma_url, timeout_s=30) for _ in range(2))
    vectors = unit_vectors(2)
    mine.upsert(1, np.array([1]), vectors[:1])
    other.drop(1)
    assert not mine.search(1, vectors[0], count=1)
    mine.upsert(1, np.array([1]), vectors[:1])
    other.drop(1)
    mine.upsert(1, np.array([2]), vectors[1:])
    assert other.ids(1).tolist() == [2]
    mine.drop(1)
    mine.close()
    other.close()


def test_prefixes_keep_catalogs_apart(chroma_url: str) -> None:
    mine = ChromaIndex(lambda: chroma_url, timeout_s=30)
    theirs = ChromaIndex(lambda: chroma_url, timeout_s=30, prefix="theirs")
    mine.upsert(1, np.array([1]), unit_vectors(1))
    assert theirs.count(1) == 0
    mine.drop(1)
    mine.close()
    theirs.close()


def test_a_server_that_is_down_fails_fast_and_only_when_used() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{probe.getsockname()[1]}"
    index = LateVectorIndex("chroma", lambda: url, timeout_s=30, prefix="test")
    started = time.monotonic()
    with pytest.raises(VectorStoreUnreachableError, match="refused"):
        index.search(1, unit_vectors(1)[0], count=1)
    assert time.monotonic() - started < 5


def test_chromas_client_is_loaded_when_it_is_wanted(chroma_url: str) -> None:
    code = (
        "import sys\n"
        "from embedserve.bootstrap.house import LateVectorIndex\n"
        f"index = LateVectorIndex('chroma', lambda: '{chroma_url}', timeout_s=9, prefix='x')\n"
        "index.close()\n"
        "before = 'chromadb' in sys.modules\n"
        "index.load()\n"
        "print(before, 'chromadb' in sys.modules, index.count(1))\n"
        "index.close()\n"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.split() == ["False", "True", "0"]


def test_a_server_that_does_not_answer_is_given_up_on() -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        index = ChromaIndex(lambda: f"http://127.0.0.1:{silent.getsockname()[1]}", timeout_s=0.3)
        with pytest.raises(VectorStoreUnreachableError, match="timed out"):
            index.count(1)
        index.close()


def test_an_answer_that_is_not_chromas_is_translated(chroma_url: str, tmp_path: Path) -> None:
    index = ChromaIndex(lambda: f"{chroma_url}/elsewhere", timeout_s=5)
    with pytest.raises(VectorStoreError):
        index.count(1)
    index.close()
    for wrong in ("chroma:8000", "http://127.0.0.1:99999", "http://127.0.0.1:x"):
        with pytest.raises(VectorStoreError, match="no address"):
            ChromaIndex(lambda url=wrong: url, timeout_s=5).count(1)  # type: ignore[misc]


@pytest.mark.parametrize(
    ("status", "body", "is_unreachable"),
    [(503, b"busy", True), (502, b"<html>", True), (500, b"broken", False), (200, b"<html>", False),
     (200, b"[]", False), (200, b"{}", False), (200, b"7", False)],
)  # fmt: skip
def test_only_a_missing_answer_is_unreachable(
    status: int, body: bytes, is_unreachable: bool
) -> None:
    with answering(status, body) as url:
        index = ChromaIndex(lambda: url, timeout_s=5)
        with pytest.raises(VectorStoreError) as caught:
            index.count(1)
        index.close()
    assert isinstance(caught.value, VectorStoreUnreachableError) is is_unreachable


def test_a_mistake_of_ours_is_not_chromas_failure(chroma_url: str) -> None:
    index = ChromaIndex(lambda: chroma_url, timeout_s=5)
    index.upsert(1, np.array([1]), unit_vectors(1))
    with pytest.raises(TypeError):
        index.search(1, cast(Vectors, "no vector"), count=1)
    with pytest.raises(AttributeError):
        index.upsert(1, np.array([1]), cast(Vectors, "no vectors"))
    index.drop(1)
    index.close()


def test_a_call_whose_connection_is_closed_for_a_new_address_is_unreachable() -> None:
    urls = ["http://127.0.0.1:1"]
    with hanging() as (url, has_called):
        urls.append(url)
        index = ChromaIndex(lambda: urls[-1], timeout_s=5)
        failures: list[Exception] = []

        def call() -> None:
            try:
                index.count(1)
            except Exception as error:
                failures.append(error)

        thread = Thread(target=call)
        thread.start()
        assert has_called.wait(5)
        urls.append("http://127.0.0.1:1")
        with pytest.raises(VectorStoreUnreachableError):
            index.count(1)
        thread.join()
        index.close()
    assert [type(failure) for failure in failures] == [VectorStoreUnreachableError]


def test_a_vector_that_is_refused_is_translated(chroma_url: str) -> None:
    index = ChromaIndex(lambda: chroma_url, timeout_s=5)
    with pytest.raises(VectorStoreError) as caught:
        index.upsert(1, np.array([1]), np.full((1, 8), np.nan, np.float32))
    assert not isinstance(caught.value, VectorStoreUnreachableError)
    index.drop(1)
    index.close()


def test_a_write_after_a_read_does_not_replay_every_change(chroma_url: str) -> None:
    index = ChromaIndex(lambda: chroma_url, timeout_s=60)
    vectors = unit_vectors(3000, dimensions=384)
    for start in range(0, 3000, 500):
        part = slice(start, start + 500)
        index.upsert(2, np.arange(3000)[part], vectors[part])
    index.search(2, vectors[0], count=1)
    started = time.monotonic()
    index.delete(2, [7])
    assert time.monotonic() - started < 3  # 0.03 s; the replay takes 5 s and more
    index.drop(2)
    index.close()


@contextmanager
def hanging() -> Iterator[tuple[str, Event]]:
    """Take one connection and say nothing; the event tells that a call has come."""
    has_called = Event()
    taken: list[socket.socket] = []
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()

        def accept() -> None:
            taken.append(listener.accept()[0])
            taken[0].recv(10)
            has_called.set()

        Thread(target=accept, daemon=True).start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}", has_called
        for connection in taken:
            connection.close()
