"""What many tests share: the real model, real documents, a live server."""

import hashlib
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from embedserve.ingest.extract import ExtractLimits, ExtractorPool
from tests.live import LiveServer, environment

ROOT = Path(__file__).parent.parent
DATA = ROOT.parent / "shared" / "data"
CACHE = ROOT / ".cache" / "models"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--kill-rounds", type=int, default=10, help="Kills in tests/faults.")
    parser.addoption("--kill-seed", type=int, default=2, help="Seed of their moments.")


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder of real documents; tests that need it are skipped, loudly, without it."""
    if not DATA.is_dir():
        pytest.skip(f"NO REAL DOCUMENTS: {DATA} is absent, nothing was checked on them")
    return DATA


@pytest.fixture(scope="session")
def model_home() -> Path:
    """A home with all-minilm installed: exported once for each state of the code that exports."""
    sources = sorted((ROOT / "embedserve" / "models").iterdir())
    sources += [ROOT / "embedserve" / "services" / "models.py", ROOT / "constraints.txt"]
    content = b"".join(path.read_bytes() for path in sources if path.is_file())
    home = CACHE / hashlib.sha256(content).hexdigest()[:16]
    if not home.exists():
        shutil.rmtree(CACHE, ignore_errors=True)
    subprocess.run(
        [sys.executable, "-m", "embedserve", "pull", "all-minilm", "--home", str(home)],
        cwd=ROOT / "tests",
        env=environment(),
        check=True,
        timeout=120,
    )
    return home


@pytest.fixture
def home(model_home: Path, tmp_path: Path) -> Path:
    """An empty home that has the model."""
    folder = tmp_path / "home"
    folder.mkdir()
    (folder / "models").symlink_to(model_home / "models")
    return folder


@pytest.fixture(scope="module")
def pool() -> Iterator[ExtractorPool]:
    """Extraction workers with limits that small files can reach."""
    limits = ExtractLimits(max_file_bytes=8 * 1024 * 1024, max_text_chars=4_000_000)
    pool = ExtractorPool(2, limits)
    yield pool
    pool.close()


@pytest.fixture(scope="session")
def server(model_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    """One server for all tests that leave it as they found it; its `documents` may be ingested."""
    folder = tmp_path_factory.mktemp("shared")
    (folder / "home").mkdir()
    (folder / "home" / "models").symlink_to(model_home / "models")
    with LiveServer(folder / "home", allow=[folder / "documents"]) as live:
        yield live
    assert live.process.returncode == 0, live.log()
    assert "Traceback" not in live.log(), live.log()
