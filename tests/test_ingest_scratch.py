"""What a killed process leaves of workers that were loading is deleted by the next one."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from embedserve.ingest.extract import ExtractorPool
from embedserve.ingest.limits import ExtractLimits
from embedserve.ingest.scratch import Scratch
from tests.live import LiveServer


def left_by_a_kill(scratch: Scratch) -> Path:
    """Make what is there when a process dies while its worker loads."""
    folder = scratch.folder()
    folder._finalizer.detach()  # type: ignore[attr-defined]  # a killed process deletes nothing
    left = Path(folder.name)
    (left / "native").mkdir()
    (left / "native" / "code.so").write_bytes(b"x" * 1000)
    return left


@pytest.fixture
def other(tmp_path: Path) -> Iterator[Path]:
    """Return a folder that another home's loading worker has at present."""
    with Scratch(tmp_path / "other").folder() as folder:
        yield Path(folder)


def test_the_next_owner_of_a_home_deletes_what_is_left_and_nothing_else(
    tmp_path: Path, other: Path
) -> None:
    home = tmp_path / "home"
    left = [left_by_a_kill(Scratch(home)) for _ in range(2)]
    link = left[0].with_name(left[0].name + "-link")
    link.symlink_to(other)
    try:
        assert sorted(Scratch(home).left_over()) == sorted(left)
        assert Scratch(home).sweep() == 2
        assert not any(path.exists() for path in left)
        assert other.is_dir()
        assert link.is_symlink()
        assert Scratch(home).sweep() == 0
    finally:
        link.unlink()


def test_a_worker_that_is_up_has_left_nothing_behind(tmp_path: Path) -> None:
    scratch = Scratch(tmp_path)
    pool = ExtractorPool(1, ExtractLimits(), scratch)
    try:
        (tmp_path / "a.txt").write_text("A text.")
        assert pool.extract(tmp_path / "a.txt", tmp_path).text == "A text."
        assert scratch.left_over() == []
    finally:
        pool.close()


def test_a_server_sweeps_when_it_starts(quick_home: Path) -> None:
    left = left_by_a_kill(Scratch(quick_home))
    try:
        with LiveServer(quick_home):
            assert not left.exists()
    finally:
        shutil.rmtree(left, ignore_errors=True)
