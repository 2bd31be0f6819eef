import time
from collections.abc import Iterator
from pathlib import Path
from threading import Thread

import pytest

from embedserve.errors import JobNotFoundError
from embedserve.store.catalog import Catalog
from embedserve.store.jobs import KEPT_JOBS, KEPT_JOBS_WITH_FILES, Jobs
from embedserve.types import FileProblem, FileResult, FoundFile, Job, KnownFile, Work
from tests.store_samples import ARTEFACT, catalog_with_index, document, staged


@pytest.fixture
def jobs(tmp_path: Path) -> Iterator[Jobs]:
    with Catalog(tmp_path / "catalog.sqlite3") as catalog:
        yield catalog.jobs


def test_a_job_goes_from_queued_to_its_end(jobs: Jobs) -> None:
    job = jobs.create("notes", "/d")
    assert (job.status, job.index, job.path, job.counts) == ("queued", "notes", "/d", {})
    claimed = jobs.claim_next("me")
    assert claimed is not None
    assert (claimed.id, claimed.status) == (job.id, "running")
    jobs.set_totals(job.id, files=3, bytes_to_read=100)
    ended = jobs.finish(job.id, "failed", error="no space")
    assert (ended.files_total, ended.bytes_total, ended.error) == (3, 100, "no space")
    assert ended.started_at is not None
    assert ended.finished_at is not None
    assert ended.created_at <= ended.started_at <= ended.finished_at


def test_claims_are_oldest_first_and_one_for_each_index(jobs: Jobs) -> None:
    first, second, other = (jobs.create(name, "/d") for name in ("a", "a", "b"))
    claimed = [jobs.claim_next("me") for _ in range(3)]
    assert [job.id if job else None for job in claimed] == [first.id, other.id, None]
    jobs.finish(first.id, "succeeded")
    following = jobs.claim_next("me")
    assert following is not None
    assert following.id == second.id


def test_one_job_is_claimed_once_by_many_threads(jobs: Jobs) -> None:
    for number in range(8):
        jobs.create(f"index {number}", "/d")
    claimed: list[Job] = []

    def claim() -> None:
        while job := jobs.claim_next("me"):
            claimed.append(job)

    threads = [Thread(target=claim) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({job.id for job in claimed}) == len(claimed) == 8


def test_what_a_former_runner_left_is_queued_again_or_cancelled(jobs: Jobs) -> None:
    left, unwanted, own = (jobs.create(name, "/d") for name in ("a", "b", "c"))
    jobs.claim_next("former")
    jobs.claim_next("former")
    jobs.request_cancel(unwanted.id)
    jobs.claim_next("present")
    assert jobs.requeue_orphans("present") == 1
    states = [jobs.get(job.id).status for job in (left, unwanted, own)]
    assert states == ["queued", "cancelled", "running"]


def test_a_resumed_job_keeps_what_it_noted_first(jobs: Jobs) -> None:
    job = jobs.create("a", "/d").id
    jobs.record_files(job, [FileResult("/d/a", "added", chunks=3)])
    again = [FileResult("/d/a", "unchanged"), FileResult("/d/b", "unchanged")]
    jobs.record_files(job, again, only_if_absent=True)
    assert jobs.get(job).counts == {"added": 1, "unchanged": 1}
    jobs.record_files(job, [FileResult("/d/a", "updated", chunks=4)])
    assert jobs.get(job).counts == {"updated": 1, "unchanged": 1}


def test_file_results_are_paged_and_filtered(jobs: Jobs) -> None:
    job = jobs.create("a", "/d").id
    problem = FileProblem("/d/2", "timed_out", "extract", "too slow", "split it", True)
    failed = FileResult("/d/2", "failed", problem=problem)
    jobs.record_files(job, [FileResult("/d/1", "added", 2), failed, FileResult("/d/3", "added", 1)])
    assert jobs.file_results(job, limit=10, outcomes=["failed"]) == [failed]
    assert jobs.file_results(job, limit=10, outcomes=[]) == []
    assert [result.path for result in jobs.file_results(job, limit=1, offset=2)] == ["/d/3"]


def test_cancel_stops_a_queued_job_at_once_and_asks_a_running_one(jobs: Jobs) -> None:
    running, queued = jobs.create("a", "/d"), jobs.create("a", "/d")
    jobs.claim_next("me")
    assert jobs.request_cancel(queued.id).status == "cancelled"
    assert jobs.request_cancel(running.id).status == "running"
    assert jobs.is_cancel_requested(running.id)
    jobs.finish(running.id, "cancelled")
    assert jobs.claim_next("me") is None


def test_the_latest_jobs_come_first(jobs: Jobs) -> None:
    made = [jobs.create(name, "/d").id for name in ("a", "b", "a")]
    assert [job.id for job in jobs.latest(2)] == [made[2], made[1]]
    assert [job.id for job in jobs.latest(9, index="a")] == [made[2], made[0]]


def test_an_unknown_job_is_named(jobs: Jobs) -> None:
    with pytest.raises(JobNotFoundError, match="`nope`"):
        jobs.get("nope")
    with pytest.raises(JobNotFoundError):
        jobs.request_cancel("nope")


def test_the_jobs_of_a_deleted_index_never_run_on_a_new_one_of_its_name(tmp_path: Path) -> None:
    with catalog_with_index(tmp_path) as (catalog, _, running):
        jobs = catalog.jobs
        queued, other = jobs.create("notes", "/d").id, jobs.create("other", "/d").id
        jobs.claim_next("former")
        catalog.indexes.delete("notes")
        catalog.indexes.create("notes", "{}", model="m", artefact=ARTEFACT, dimensions=3)
        ended = jobs.get(queued)
        assert ended.status == "cancelled"
        assert ended.finished_at is not None
        assert ended.error is not None
        assert "`notes` was deleted" in ended.error
        assert jobs.is_cancel_requested(running)
        assert jobs.requeue_orphans("present") == 0, "the running one, after a kill"
        claimed = jobs.claim_next("present")
        assert claimed is not None
        assert claimed.id == other
        assert jobs.claim_next("present") is None


def test_a_running_job_keeps_why_its_index_ended_it(tmp_path: Path) -> None:
    with catalog_with_index(tmp_path) as (catalog, _, job):
        catalog.jobs.claim_next("me")
        catalog.indexes.delete("notes")
        ended = catalog.jobs.finish(job, "cancelled")
        assert ended.error is not None
        assert "was deleted" in ended.error


def test_old_jobs_lose_their_files_and_later_go_but_keep_their_counts(jobs: Jobs) -> None:
    untouched = jobs.create("b", "/d").id
    jobs.record_files(untouched, [FileResult("/d/a", "added", 1)])
    jobs.finish(untouched, "succeeded")
    waiting = jobs.create("a", "/d").id
    made = []
    for _ in range(KEPT_JOBS + 3):
        made.append(jobs.create("a", "/d").id)
        jobs.record_files(made[-1], [FileResult("/d/a", "added", 1)])
        jobs.finish(made[-1], "succeeded")
    kept = [job.id for job in jobs.latest(1000, index="a")]
    assert kept == [*reversed(made[3:]), waiting]
    with_files = [job for job in kept if jobs.file_results(job, limit=1)]
    assert with_files == kept[:KEPT_JOBS_WITH_FILES]
    assert jobs.get(made[3]).counts == {"added": 1}
    assert len(jobs.file_results(untouched, limit=1)) == 1


def test_counts_do_not_group_the_files_of_a_job(jobs: Jobs) -> None:
    job = jobs.create("a", "/d").id
    jobs.record_files(job, [FileResult(f"/d/{n}", "unchanged") for n in range(100_000)])
    started = time.perf_counter()
    for _ in range(50):
        assert jobs.get(job).counts == {"unchanged": 100_000}
    # 0.02 ms each; grouping the rows took 20 ms, and a job is asked for five times a second.
    assert (time.perf_counter() - started) / 50 < 0.005


def test_a_retry_is_about_the_files_that_failed(jobs: Jobs) -> None:
    former = jobs.create("notes", "/d")
    failure = FileProblem("/d/b", "corrupt", "extract", "It is broken.")
    jobs.record_files(
        former.id, [FileResult("/d/a", "added"), FileResult("/d/b", "failed", problem=failure)]
    )
    assert jobs.paths(former.id) == frozenset()
    assert jobs.failed_paths(former.id) == ["/d/b"]
    again = jobs.create_retry(former, jobs.failed_paths(former.id))
    assert (again.index, again.path, again.retry_of) == ("notes", "/d", former.id)
    assert jobs.paths(again.id) == {"/d/b"}


def test_what_files_took_is_summed_with_their_commits(tmp_path: Path) -> None:
    with catalog_with_index(tmp_path) as (catalog, index, job):
        catalog.jobs.set_totals(job, files=2, bytes_to_read=100)
        work = Work(bytes_read=60, chunks_embedded=1, tokens_embedded=7)
        version = document("/d/a", ["x", "y"])
        catalog.documents.commit(index, version, job_id=job, outcome="added", work=work)
        file = KnownFile("/d/b", 40, 1, "", problem=FileProblem("/d/b", "corrupt", "extract", ""))
        catalog.documents.commit_problem(
            index, file, job_id=job, outcome="failed", keep_previous=False
        )
        ended = catalog.jobs.get(job)
        assert (ended.bytes_done, ended.bytes_total, ended.chunks) == (100, 100, 2)
        assert (ended.chunks_embedded, ended.tokens_embedded) == (1, 7)
        # A job that is cut off and resumed counts what is left to what it did.
        catalog.jobs.set_totals(job, files=2, bytes_to_read=30)
        assert catalog.jobs.get(job).bytes_total == 130


def test_a_renamed_document_keeps_its_chunks(tmp_path: Path) -> None:
    with catalog_with_index(tmp_path) as (catalog, index, job):
        catalog.documents.commit(index, document("/d/a", ["x"]), job_id=job, outcome="added")
        ids = catalog.chunks.ids(index.id).tolist()
        former = catalog.documents.known_files(index.id, "/d")["/d/a"]
        catalog.documents.move(index, former, FoundFile("/d/b", 10, 99), job_id=job)
        [known] = catalog.documents.known_files(index.id, "/d").values()
        assert (known.path, known.mtime_ns, known.sha256) == ("/d/b", 99, former.sha256)
        assert catalog.chunks.ids(index.id).tolist() == ids
        assert catalog.chunks.by_id(index.id, ids)[ids[0]].path == "/d/b"
        assert catalog.jobs.get(job).counts == {"added": 1, "deleted": 1}


def test_what_an_unfinished_job_has_staged_survives_a_vacuum(tmp_path: Path) -> None:
    with catalog_with_index(tmp_path) as (catalog, index, job):
        catalog.jobs.claim_next("me")
        draft = catalog.drafts.open(job, "/d/a", "one")
        catalog.drafts.add(index, draft, staged(["x"]), job_id=job, work=Work(chunks_embedded=1))
        assert sum(catalog.upkeep.delete_unused_vectors()) == 0
        catalog.jobs.requeue_orphans("another life")
        assert sum(catalog.upkeep.delete_unused_vectors()) == 0, "the job will go on"
        catalog.drafts.forget(job)
        catalog.jobs.finish(job, "cancelled")
        assert sum(catalog.upkeep.delete_unused_vectors()) == 1


def test_a_job_that_is_put_back_goes_on_or_is_cancelled_when_that_was_asked(jobs: Jobs) -> None:
    job = jobs.create("notes", "/d")
    jobs.requeue(job.id)
    assert jobs.get(job.id).status == "queued"
    assert jobs.claim_next("a") is not None
    jobs.requeue(job.id)
    assert jobs.get(job.id).status == "queued"
    assert jobs.claim_next("a") is not None
    jobs.request_cancel(job.id)
    assert jobs.requeue(job.id).status == "cancelled"
