from pathlib import Path

from embedserve.ingest.extract import ExtractorPool
from embedserve.ingest.limits import ExtractLimits
from embedserve.ingest.scan import plan
from embedserve.services.file_problems import retry_after_change
from embedserve.store.catalog import Catalog
from embedserve.types import FileProblem, FoundFile, Index, KnownFile
from tests.store_samples import catalog_with_index

SCANNED = KnownFile("/a.pdf", 1, 2, "", FileProblem("/a.pdf", "scanned", "extract", "pictures"))
UNREADABLE = KnownFile("/b.pdf", 1, 2, "", FileProblem("/b.pdf", "bad_file_name", "scan", "no"))


def to_read(catalog: Catalog, index: Index) -> list[str]:
    found = [FoundFile(one.path, one.size_bytes, one.mtime_ns) for one in (SCANNED, UNREADABLE)]
    return [file.path for file in plan(found, catalog.documents.known_files(index.id, "/")).update]


def test_what_gave_no_text_is_read_once_more_by_another_reader(tmp_path: Path) -> None:
    with catalog_with_index(tmp_path) as (catalog, index, job):

        def refuse(file: KnownFile) -> None:
            catalog.documents.commit_problem(
                index, file, job_id=job, outcome="skipped", keep_previous=False
            )

        retry_after_change(catalog, "without OCR")
        refuse(SCANNED)
        refuse(UNREADABLE)
        retry_after_change(catalog, "without OCR")
        assert to_read(catalog, index) == []
        retry_after_change(catalog, "with OCR")
        assert to_read(catalog, index) == ["/a.pdf"]
        refuse(SCANNED)
        retry_after_change(catalog, "with OCR")
        assert to_read(catalog, index) == []


def test_a_reader_is_told_by_its_limits() -> None:
    limits = [ExtractLimits(), ExtractLimits(ocr_languages="eng"), ExtractLimits(archive_depth=4)]
    pools = [ExtractorPool(1, one) for one in [*limits, ExtractLimits()]]
    first, *others, again = [pool.identity for pool in pools]
    for pool in pools:
        pool.close()
    assert first == again
    assert len({first, *others}) == 3
