"""What many tests share: the real model, real documents, a live server."""

import fcntl
import hashlib
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from embedserve.ingest.extract import ExtractorPool
from embedserve.ingest.limits import ExtractLimits
from embedserve.models.installed import list_installed
from embedserve.services.workshop import Workshop
from tests.candidate_tasks import MakeTask, tasks_of
from tests.live import LiveServer, environment
from tests.quick_model import install_quick
from tests.tiny_models import CASES, Exported, export_all, read_exported

ROOT = Path(__file__).parent.parent
DATA = ROOT.parent / "shared" / "data"
CACHE = ROOT / ".cache" / "models"
EXPORTS = ROOT / ".cache" / "exported"
# Files of embedserve/services that a pull goes through.
PULLING = tuple(
    f"{name}.py"
    for name in ("candidates", "checkpoints", "machine", "models", "workbench", "workshop")
)
# 30 s on two idle cores.
PULL_S = 300


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--kill-rounds", type=int, default=4, help="Kills in tests/faults.")
    parser.addoption("--kill-seed", type=int, default=2, help="Seed of their moments.")
    parser.addoption("--all-recipes", action="store_true", help="On every architecture.")
    parser.addoption("--all-faults", action="store_true", help="The slow ones of tests/faults too.")


# Files in which one process is at work for half a minute and more: they begin first, so that none
# of them is left alone at the end. The first two wait for different things that a fresh clone
# lacks: the tiny models' exports, and the model.
LONG_FILES = (
    "test_models_architectures_recipes.py",
    "test_kill.py",
    "test_cli.py",
    "test_models_candidates.py",
    "test_kill_generations.py",
    "test_real_documents.py",
    "test_cli_models.py",
    "test_model_management.py",
    "test_stress.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    order = {name: place for place, name in enumerate(LONG_FILES)}
    items.sort(key=lambda item: order.get(item.path.name, len(order)))


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder of real documents; tests that need it are skipped, loudly, without it."""
    if not DATA.is_dir():
        pytest.skip(f"NO REAL DOCUMENTS: {DATA} is absent, nothing was checked on them")
    return DATA


@pytest.fixture(scope="session")
def model_home() -> Path:
    """A home with all-minilm installed: pulled once for each state of the code that decides it."""
    home = CACHE / _artefact_code()
    CACHE.parent.mkdir(parents=True, exist_ok=True)
    with (CACHE.parent / "models.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # tests run in several processes
        if not home.exists():
            shutil.rmtree(CACHE, ignore_errors=True)
        if not list_installed(home / "models"):
            subprocess.run(
                [sys.executable, "-m", "embedserve", "pull", "all-minilm", "--home", str(home)],
                cwd=ROOT / "tests",
                env=environment(),
                check=True,
                timeout=PULL_S,
            )
    return home


def _artefact_code() -> str:
    """Return a digest of every file that what is pulled and measured depends on."""
    package = ROOT / "embedserve"
    sources = [path for path in (package / "models").rglob("*") if path.suffix != ".pyc"]
    sources += (package / "engine").glob("*.py")
    sources += [package / "services" / name for name in PULLING]
    return _digest([*sources, ROOT / "constraints.txt"])


def _export_code() -> str:
    """Return a digest of every file that the tiny models and their exports depend on."""
    sources = list((ROOT / "embedserve" / "models").rglob("*.py"))
    return _digest([*sources, *(ROOT / "tests").glob("tiny_*.py"), ROOT / "constraints.txt"])


def _digest(paths: Iterable[Path]) -> str:
    content = [path.read_bytes() for path in sorted(paths) if path.is_file()]
    return hashlib.sha256(b"\0".join(content)).hexdigest()[:16]


@pytest.fixture(scope="session")
def exported() -> dict[str, Exported]:
    """Every tiny model, made and exported once for each state of the code that decides it."""
    folder = EXPORTS / _export_code()
    EXPORTS.parent.mkdir(parents=True, exist_ok=True)
    with EXPORTS.with_name("exported.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # tests run in several processes
        if not (done := folder / "done").exists():
            shutil.rmtree(EXPORTS, ignore_errors=True)
            folder.mkdir(parents=True)
            export_all(folder)
            done.touch()
    return {case.name: read_exported(case, folder / case.name) for case in CASES}


@pytest.fixture
def workshop() -> Iterator[Workshop]:
    """Whatever a pull runs outside of this process; ended with the test."""
    workshop = Workshop()
    yield workshop
    workshop.close()


@pytest.fixture
def make_task(exported: dict[str, Exported], tmp_path: Path) -> MakeTask:
    """Make searches for an artefact of a tiny model."""
    return tasks_of(exported, tmp_path)


@pytest.fixture
def home(model_home: Path, tmp_path: Path) -> Path:
    """An empty home that has the model."""
    folder = tmp_path / "home"
    folder.mkdir()
    (folder / "models").symlink_to(model_home / "models")
    return folder


@pytest.fixture(scope="session")
def quick_models(model_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of models whose all-minilm cuts as the real one does and embeds in no time."""
    folder = tmp_path_factory.mktemp("quick")
    install_quick(model_home, folder)
    return folder / "models"


@pytest.fixture
def quick_home(quick_models: Path, tmp_path: Path) -> Path:
    """An empty home with the quick model: for tests that ask nothing of what a vector means."""
    folder = tmp_path / "home"
    folder.mkdir()
    (folder / "models").symlink_to(quick_models)
    return folder


@pytest.fixture(scope="module")
def pool() -> Iterator[ExtractorPool]:
    """Extraction workers with limits that small files can reach."""
    limits = ExtractLimits(max_file_bytes=8 * 1024 * 1024, max_text_chars=4_000_000)
    pool = ExtractorPool(2, limits)
    yield pool
    pool.close()


@contextmanager
def serving(
    model_home: Path, folder: Path, settings: Mapping[str, str] | None = None
) -> Iterator[LiveServer]:
    """Serve a new home that has these models; `folder`'s `documents` may be ingested."""
    (folder / "home").mkdir()
    (folder / "home" / "models").symlink_to(model_home / "models")
    (folder / "documents").mkdir()
    with LiveServer(folder / "home", allow=[folder / "documents"], settings=settings) as live:
        yield live
    assert live.process.returncode == 0, live.log()
    assert "Traceback" not in live.log(), live.log()


@pytest.fixture(scope="session")
def server(model_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    """One server for all tests that leave it as they found it; its `documents` may be ingested."""
    with serving(model_home, tmp_path_factory.mktemp("shared")) as live:
        yield live


@pytest.fixture(scope="module")
def module_server(
    model_home: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[LiveServer]:
    """One server for the tests of a file, each of which begins without indexes: see `emptied`."""
    with serving(model_home, tmp_path_factory.mktemp("module")) as live:
        yield live


@pytest.fixture
def emptied(module_server: LiveServer) -> Iterator[LiveServer]:
    """The file's server; what a test leaves in it is deleted."""
    yield module_server
    for index in module_server.http.get("/indexes").json()["indexes"]:
        module_server.http.delete(f"/indexes/{index['name']}").raise_for_status()


@pytest.fixture
def own_folder(module_server: LiveServer) -> Path:
    """A folder of this test alone that the file's server may ingest."""
    documents = module_server.home.with_name("documents")
    folder = documents / str(len(list(documents.iterdir())))
    folder.mkdir()
    return folder


@pytest.fixture(scope="session")
def sources_server(
    model_home: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[LiveServer]:
    """One server for uploads, addresses of this machine and watches, with limits easily reached."""
    settings = {
        "EMBEDSERVE_MAX_FILE_BYTES": "400000",
        "EMBEDSERVE_MAX_UPLOAD_FILES": "3",
        "EMBEDSERVE_FETCH_PRIVATE": "true",
        "EMBEDSERVE_FETCH_DELAY_S": "0",
        "EMBEDSERVE_FETCH_MAX_URLS": "5",
        "EMBEDSERVE_WATCH_SETTLE_S": "0.3",
    }
    with serving(model_home, tmp_path_factory.mktemp("sources"), settings) as live:
        yield live
