"""Documents that are staged: seen by nobody, taken up again, committed at once, forgotten."""

from dataclasses import replace
from pathlib import Path

import pytest

from embedserve.store.catalog import Catalog
from embedserve.types import Draft, Index, NewDocument, Work
from tests.store_samples import catalog_with_index, document, staged


def drafted(catalog: Catalog, index: Index, job: str, texts: list[str]) -> Draft:
    draft = catalog.drafts.open(job, "/d/a", "one")
    for first in range(0, len(texts), 2):
        part = staged(texts[first : first + 2], first=first)
        draft = catalog.drafts.add(index, draft, part, job_id=job, work=Work(0, 2, 20))
    return draft


def version(texts: list[str], draft: Draft) -> NewDocument:
    """The last chunks, which follow those that are staged."""
    last = staged(texts, first=draft.chunks)
    return replace(document("/d/a", texts), chunks=last.chunks, draft=draft)


def rows(catalog: Catalog) -> int:
    with catalog.drafts._database.read() as connection:
        return sum(
            connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
            for table in ("drafts", "draft_chunks")
        )


def test_a_staged_document_replaces_the_old_one_in_one_step(tmp_path: Path) -> None:
    with catalog_with_index(tmp_path) as (catalog, index, job):
        catalog.documents.commit(index, document("/d/a", ["old"]), job_id=job, outcome="added")
        [old] = catalog.chunks.ids(index.id).tolist()
        draft = drafted(catalog, index, job, ["a", "b", "c", "d"])
        assert catalog.chunks.ids(index.id).tolist() == [old]
        assert catalog.indexes.counts(index.id).chunks == 1
        catalog.documents.commit(
            index, version(["e", "f"], draft), job_id=job, outcome="updated", work=Work(1, 2, 20)
        )
        ids = catalog.chunks.ids(index.id).tolist()
        chunks = catalog.chunks.by_id(index.id, ids)
        assert [chunks[one].text for one in ids] == ["a", "b", "c", "d", "e", "f"]
        assert set(catalog.changes.pending_ids(index.id).tolist()) == {old, *ids}
        ended = catalog.jobs.get(job)
        assert (ended.chunks, ended.chunks_embedded, ended.tokens_embedded) == (6, 6, 60)
        catalog.drafts.discard(draft)
        assert rows(catalog) == 0


def test_staged_chunks_wait_for_the_full_text_and_come_into_it(tmp_path: Path) -> None:
    with catalog_with_index(tmp_path) as (catalog, index, job):
        draft = drafted(catalog, index, job, ["apple", "pear", "apple", "plum"])
        last = version(["apple", "fig"], draft)
        catalog.documents.commit(index, last, job_id=job, outcome="added")
        assert catalog.lexical.has_pending.is_set()
        assert catalog.lexical.pending(index.id) == 6
        assert not catalog.lexical.search(index, ["appl"], count=5)
        while catalog.lexical.index_pending(index.id):
            pass
        assert catalog.lexical.pending(index.id) == 0
        [hit] = catalog.lexical.search(index, ["appl"], count=5)
        assert catalog.chunks.texts(index.id, [hit.id], most=9)[hit.id].places == 3
        assert len(catalog.lexical.search(index, ["fig"], count=5)) == 1


def test_a_job_that_goes_on_takes_up_what_it_staged_of_the_same_text(tmp_path: Path) -> None:
    with catalog_with_index(tmp_path) as (catalog, index, job):
        draft = drafted(catalog, index, job, ["a", "b", "c", "d"])
    with Catalog(tmp_path / "catalog.sqlite3") as catalog:
        assert catalog.drafts.open(job, "/d/a", "one") == draft
        assert (draft.chunks, draft.chars) == (4, 3)
        other = catalog.drafts.open(job, "/d/a", "another")
        assert (other.chunks, other.chars) == (0, 0)
        assert rows(catalog) == 1, "what was made of another text is gone"


def test_what_jobs_have_staged_goes_with_them(tmp_path: Path) -> None:
    with catalog_with_index(tmp_path) as (catalog, index, job):
        catalog.jobs.claim_next("me")
        drafted(catalog, index, job, ["a", "b"])
        catalog.drafts.forget_ended()
        assert rows(catalog) == 3, "the job has not ended"
        catalog.jobs.request_cancel(job)
        catalog.jobs.requeue_orphans("another life")
        catalog.drafts.forget_ended()
        assert rows(catalog) == 0


def test_a_draft_that_has_lost_chunks_is_not_committed(tmp_path: Path) -> None:
    with catalog_with_index(tmp_path) as (catalog, index, job):
        draft = drafted(catalog, index, job, ["a", "b"])
        with pytest.raises(ValueError, match="2 of 3 chunks"):
            catalog.documents.commit(
                index, version(["c"], replace(draft, chunks=3)), job_id=job, outcome="added"
            )
        assert catalog.chunks.count(index.id) == 0
