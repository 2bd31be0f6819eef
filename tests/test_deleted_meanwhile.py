"""What is asked about an index or a model while another request deletes it."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from embedserve.api.errors import respond, status_of
from embedserve.engine.scheduler import Scheduler
from embedserve.errors import (
    CatalogError,
    IndexNotFoundError,
    ModelError,
    ModelNotFoundError,
    OverloadedError,
)
from embedserve.models import installed
from embedserve.models.manifest import MANIFEST_FILE, ONNX_FILE
from embedserve.models.names import ModelName, parse_name
from embedserve.services.encoders import Encoders
from embedserve.services.questions import Questions
from embedserve.store.upload_files import UploadFiles
from embedserve.types import BatchTokens
from tests.store_samples import catalog_with_index

NAME = "all-minilm"
LOOKS = 400
COMES_AND_GOES = """
import os, sys
while True:
    os.rename(*sys.argv[1:3])
    os.rename(*sys.argv[2:0:-1])
"""
GOES = """
import contextlib, os, sys
while True:
    with contextlib.suppress(OSError):
        os.rmdir(sys.argv[1])
"""


@contextmanager
def churn(program: str, *folders: Path) -> Iterator[None]:
    """Have another process change folders all the time."""
    with subprocess.Popen([sys.executable, "-c", program, *map(str, folders)]) as process:
        try:
            yield
            assert process.poll() is None
        finally:
            process.kill()


def folder_of(models: Path, name: ModelName) -> Path:
    return models / name.host / name.namespace / name.model / name.tag


@pytest.fixture
def manifest_file(model_home: Path) -> Path:
    return installed.resolve(model_home / "models", NAME).folder / MANIFEST_FILE


def test_models_that_come_and_go_are_there_or_not(manifest_file: Path, tmp_path: Path) -> None:
    folder = folder_of(tmp_path, parse_name("two"))
    folder.mkdir(parents=True)
    shutil.copyfile(manifest_file, folder / MANIFEST_FILE)
    seen = set()
    with churn(COMES_AND_GOES, folder.parent, tmp_path / "away"):
        for _ in range(LOOKS):
            seen.add(len(installed.list_installed(tmp_path)))
            with suppress(ModelNotFoundError):
                installed.resolve(tmp_path, "two")
    assert seen <= {0, 1}


def test_model_is_installed_though_its_empty_parents_are_removed(
    manifest_file: Path, tmp_path: Path
) -> None:
    name = parse_name("two:b")
    with churn(GOES, folder_of(tmp_path, name).parent):
        for _ in range(LOOKS // 4):
            with installed.staging(tmp_path, name) as staged:
                shutil.copyfile(manifest_file, staged / MANIFEST_FILE)
                shutil.rmtree(installed.install(tmp_path, name, staged).folder)


def test_model_that_is_removed_while_it_loads_is_not_found(
    model_home: Path, tmp_path: Path
) -> None:
    models = tmp_path / "models"
    shutil.copytree(model_home / "models", models)
    file = installed.resolve(models, NAME).folder / ONNX_FILE
    file.unlink()
    os.mkfifo(file)  # whoever checks it waits for what is written
    scheduler = Scheduler(workers=1, batch_tokens=BatchTokens(64, 64), queue_tokens=10_000)
    encoders = Encoders(models, scheduler, device="cpu")
    with ThreadPoolExecutor(1) as pool:
        loading = pool.submit(encoders.get, NAME)
        with file.open("wb"):
            installed.remove(models, NAME)
        with pytest.raises(ModelNotFoundError):
            loading.result(20)
    encoders.close()
    scheduler.close()


def test_document_whose_index_is_deleted_before_it_is_kept_is_refused(tmp_path: Path) -> None:
    files = UploadFiles(tmp_path / "uploads", limit_bytes=10)
    incoming = files.open(7)
    incoming.write(b"x")
    files.remove_index(7)
    with pytest.raises(IndexNotFoundError, match="deleted while"):
        incoming.keep("a.md")
    incoming.close()
    assert list((tmp_path / "uploads").iterdir()) == []


def test_repair_of_a_deleted_index_asks_for_nothing(tmp_path: Path) -> None:
    with catalog_with_index(tmp_path) as (catalog, index, _):
        catalog.indexes.delete(index.name)
        catalog.changes.enqueue_upserts(index.id, [1])
        catalog.changes.enqueue_deletes(index.id, [2])
        assert not catalog.changes.has_pending(index.id)


def test_question_to_a_worker_that_stopped_is_refused_for_now() -> None:
    questions = Questions()
    waiting = questions.ask(lambda: 1)
    questions.close()
    for answer in (waiting, questions.ask(lambda: 1)):
        refusal = answer.exception(1)
        assert isinstance(refusal, OverloadedError)
        assert status_of(refusal) == 503


def test_failures_of_the_server_itself_leave_their_trace_in_its_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Which race it was could not be told from an answer that was lost."""
    for error in (ModelError("damaged"), IndexNotFoundError("gone"), CatalogError("failed")):
        respond("/indexes/notes/documents", error)
    [record] = caplog.records
    assert record.exc_info
    assert str(record.exc_info[1]) == "failed"
    assert record.getMessage() == "failure in /indexes/notes/documents"
