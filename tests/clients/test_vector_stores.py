"""The official `openai` client with its files, vector stores and pollers."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from tests.clients.conftest import READER, WRITER, FrontEnd

QUESTION = "What happens to a String when its variable goes out of scope?"
OWNERSHIP, CONTROL, ERRORS = (
    "ch04-01-what-is-ownership.md",
    "ch03-05-control-flow.md",
    "ch09-02-recoverable-errors-with-result.md",
)


@pytest.fixture(scope="module")
def client(front_end: FrontEnd) -> Iterator[openai.OpenAI]:
    url = f"{front_end.url}/v1"
    with openai.OpenAI(base_url=url, api_key=WRITER, max_retries=0) as found:
        yield found


@pytest.fixture(scope="module")
def book(front_end: FrontEnd) -> Path:
    return front_end.folder / "book"


def test_files_are_kept_listed_and_deleted(client: openai.OpenAI, book: Path) -> None:
    content = (book / CONTROL).read_bytes()
    first = client.files.create(file=(CONTROL, content), purpose="assistants")
    second = client.files.create(file=("b.txt", b"A text."), purpose="user_data")
    assert (first.bytes, first.filename, first.object) == (len(content), CONTROL, "file")
    assert abs(first.created_at - time.time()) < 100
    assert client.files.content(first.id).read() == content
    assert client.files.retrieve(second.id) == second
    assert [file.id for file in client.files.list(limit=1)][:2] == [second.id, first.id]
    assert [file.id for file in client.files.list(purpose="assistants")] == [first.id]
    assert [file.id for file in client.files.list(order="asc", after=first.id)] == [second.id]
    for file in (first, second):
        assert client.files.delete(file.id).deleted
    with pytest.raises(openai.NotFoundError):
        client.files.retrieve(first.id)
    assert list(client.files.list()) == []


def test_a_batch_is_polled_to_its_end_and_searched(client: openai.OpenAI, book: Path) -> None:
    store = client.vector_stores.create(name="Support FAQ", metadata={"team": "sales"})
    assert (store.name, store.metadata, store.status) == (
        *("Support FAQ", {"team": "sales"}),
        "completed",
    )
    with (book / OWNERSHIP).open("rb") as one, (book / CONTROL).open("rb") as two:
        batch = client.vector_stores.file_batches.upload_and_poll(
            store.id, files=[one, two], poll_interval_ms=50
        )
    assert batch.status == "completed"
    assert (batch.file_counts.completed, batch.file_counts.total) == (2, 2)
    files = list(client.vector_stores.file_batches.list_files(batch.id, vector_store_id=store.id))
    assert [file.status for file in files] == ["completed", "completed"]
    found = client.vector_stores.search(store.id, query=QUESTION, max_num_results=3)
    assert found.data[0].filename == OWNERSHIP
    assert "drop" in " ".join(part.text for one in found.data for part in one.content)
    assert all(0 <= one.score <= 1 for one in found.data)
    assert {one.file_id for one in found.data} <= {file.id for file in files}
    counts = client.vector_stores.retrieve(store.id).file_counts
    assert (counts.completed, counts.in_progress, counts.total) == (2, 0, 2)
    assert client.vector_stores.delete(store.id).deleted
    assert client.files.retrieve(files[0].id), "files outlive their vector store"
    for file in files:
        client.files.delete(file.id)


def test_attributes_choose_files_and_may_change(client: openai.OpenAI, book: Path) -> None:
    store = client.vector_stores.create(name="chosen")
    assert store.id == "chosen", "an index by that name"
    sent = {
        name: client.files.create(file=(name, (book / name).read_bytes()), purpose="assistants")
        for name in (OWNERSHIP, ERRORS)
    }
    for number, file in enumerate(sent.values()):
        done = client.vector_stores.files.create_and_poll(
            file.id,
            vector_store_id=store.id,
            attributes={"chapter": number, "kind": "even" if number % 2 == 0 else "odd"},
            poll_interval_ms=50,
        )
        assert (done.status, done.last_error) == ("completed", None)
        assert done.attributes == {
            "chapter": number,
            "kind": "even" if number % 2 == 0 else "odd",
        }

    def names(**asked: object) -> set[str]:
        found = client.vector_stores.search(store.id, query=[QUESTION], max_num_results=50, **asked)  # type: ignore[arg-type]
        return {one.filename for one in found}

    assert names() == {OWNERSHIP, ERRORS}
    assert names(filters={"type": "eq", "key": "kind", "value": "odd"}) == {ERRORS}
    either = [
        {"type": "gte", "key": "chapter", "value": 1},
        {"type": "ne", "key": "kind", "value": "odd"},
    ]
    assert names(filters={"type": "and", "filters": either}) == set()
    assert names(filters={"type": "or", "filters": either}) == {OWNERSHIP, ERRORS}
    assert names(ranking_options={"score_threshold": 1.0}) == set()
    changed = client.vector_stores.files.update(
        sent[ERRORS].id, vector_store_id=store.id, attributes={"kind": "even"}
    )
    client.vector_stores.files.poll(changed.id, vector_store_id=store.id, poll_interval_ms=50)
    assert names(filters={"type": "eq", "key": "kind", "value": "odd"}) == set()
    [page] = client.vector_stores.files.content(sent[ERRORS].id, vector_store_id=store.id)
    assert "Recoverable Errors" in str(page.text)
    client.files.delete(sent[ERRORS].id)
    assert names() == {OWNERSHIP}, "a file that is deleted is in no vector store"
    removed = client.vector_stores.files.delete(sent[OWNERSHIP].id, vector_store_id=store.id)
    assert removed.deleted
    assert names() == set()
    client.files.delete(sent[OWNERSHIP].id)
    client.vector_stores.delete(store.id)


def test_an_index_that_was_there_is_a_vector_store(client: openai.OpenAI, book: Path) -> None:
    assert "book" in [store.id for store in client.vector_stores.list(limit=1)]
    files = list(client.vector_stores.files.list("book", limit=2))
    assert len({file.id for file in files}) == 5
    assert {file.status for file in files} == {"completed"}
    found = client.vector_stores.search("book", query=QUESTION, max_num_results=1)
    file = client.vector_stores.files.retrieve(found.data[0].file_id, vector_store_id="book")
    assert (found.data[0].filename, file.status) == (OWNERSHIP, "completed")
    by_vectors: Any = {"ranker": "auto", "hybrid_search": {"embedding_weight": 1, "text_weight": 0}}
    dense = client.vector_stores.search("book", query=QUESTION, ranking_options=by_vectors)
    assert dense.data


def test_files_that_fail_are_told_of(client: openai.OpenAI) -> None:
    noise = client.files.create(file=("noise.bin", bytes(range(256)) * 40), purpose="assistants")
    good = client.files.create(file=("good.txt", b"A good text."), purpose="assistants")
    store = client.vector_stores.create(name="failing", file_ids=[good.id])
    batch = client.vector_stores.file_batches.create_and_poll(
        store.id, file_ids=[noise.id], poll_interval_ms=50
    )
    assert (batch.status, batch.file_counts.failed) == ("completed", 1)
    failed = client.vector_stores.files.retrieve(noise.id, vector_store_id=store.id)
    assert failed.status == "failed"
    assert failed.last_error
    assert failed.last_error.code == "unsupported_file"
    listed = client.vector_stores.files.list(store.id, filter="failed")
    assert [file.id for file in listed] == [noise.id]
    client.vector_stores.files.poll(good.id, vector_store_id=store.id, poll_interval_ms=50)
    changed = client.vector_stores.update(store.id, name="Failing ones", metadata={"a": "b"})
    assert (changed.id, changed.name, changed.metadata) == ("failing", "Failing ones", {"a": "b"})
    cancelled = client.vector_stores.file_batches.cancel(batch.id, vector_store_id=store.id)
    assert cancelled.status == "completed", "it was over before"
    client.vector_stores.delete(store.id)
    for file in (noise, good):
        client.files.delete(file.id)


def test_what_cannot_be_kept_is_refused(front_end: FrontEnd, client: openai.OpenAI) -> None:
    file = client.files.create(file=("a.txt", b"A text."), purpose="assistants")
    store = client.vector_stores.create(name="strict")
    own = {"type": "static", "static": {"max_chunk_size_tokens": 100, "chunk_overlap_tokens": 0}}
    with pytest.raises(openai.BadRequestError, match="cut alike"):
        client.vector_stores.files.create(
            store.id,
            file_id=file.id,
            chunking_strategy=own,  # type: ignore[arg-type]
        )
    with pytest.raises(openai.BadRequestError, match="expires_after"):
        client.vector_stores.create(expires_after={"anchor": "last_active_at", "days": 1})
    with pytest.raises(openai.BadRequestError, match="`type` of"):
        client.vector_stores.search(store.id, query="a", filters={"type": "like", "key": "b"})  # type: ignore[arg-type]
    with pytest.raises(openai.NotFoundError, match="no file"):
        client.vector_stores.files.create(store.id, file_id="file-nope")
    with pytest.raises(openai.NotFoundError):
        client.vector_stores.retrieve("nope")
    cut = client.vector_stores.create(name="cut", chunking_strategy=own)  # type: ignore[arg-type]
    definition = front_end.live.http.get(f"/indexes/{cut.id}").json()["definition"]
    assert definition["chunking"] == {"max_tokens": 100}
    for name in ("strict", "cut"):
        client.vector_stores.delete(name)
    client.files.delete(file.id)


def test_who_may_read_may_search_and_not_change(front_end: FrontEnd) -> None:
    with openai.OpenAI(base_url=f"{front_end.url}/v1", api_key=READER) as reader:
        assert reader.vector_stores.search("book", query=QUESTION).data
        for change in (
            lambda: reader.files.create(file=("a.txt", b"A"), purpose="assistants"),
            lambda: reader.vector_stores.create(name="mine"),
            lambda: reader.vector_stores.delete("book"),
        ):
            with pytest.raises(openai.PermissionDeniedError):
                change()
