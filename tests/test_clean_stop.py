"""Which stops of a home are clean, so that the next start need not check the vector index."""

import os
from pathlib import Path

from embedserve.bootstrap.house import CLEAN_STOP, open_house
from embedserve.services.index_worker import IndexWorker
from embedserve.settings import Settings
from embedserve.store.catalog import Catalog
from tests.fakes import MemoryVectorIndex
from tests.faults.family import CHROMA, children, kill_child
from tests.store_samples import catalog_with_index, wait_until


def mark(home: Path) -> str | None:
    with Catalog(home / "catalog.sqlite3") as catalog:
        return catalog.get_meta(CLEAN_STOP)


def test_a_stop_is_clean_unless_chroma_was_killed_a_moment_before(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path / "home", log_level="error")
    with open_house(settings):
        assert mark(settings.home) == "no", "should it be killed now"
    assert mark(settings.home) == "yes"
    before = set(children(os.getpid(), CHROMA))
    with open_house(settings):
        [chroma] = set(children(os.getpid(), CHROMA)) - before
        assert kill_child(chroma, os.getpid())
    assert mark(settings.home) == "no"


def test_a_check_that_was_due_is_not_forgotten_by_a_quick_stop(tmp_path: Path) -> None:
    with catalog_with_index(tmp_path) as (catalog, index, _):
        vector_index = MemoryVectorIndex()
        vector_index.is_down = True
        worker = IndexWorker(catalog, vector_index)
        worker.start(check=True)  # after a kill
        worker.stop()
        assert worker.has_doubts()

        vector_index.is_down = False
        worker = IndexWorker(catalog, vector_index)
        worker.start(check=True)
        wait_until(lambda: not worker.has_doubts(), within_s=10)
        worker.stop()
        worker.suspect(index.key)
        assert worker.has_doubts()

        worker = IndexWorker(catalog, vector_index)
        worker.start(check=False)
        worker.stop()
        assert not worker.has_doubts()
