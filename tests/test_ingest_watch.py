"""Changes are gathered until files have been left alone."""

import time
from collections.abc import Iterator
from pathlib import Path
from threading import Event, Thread

from embedserve.ingest.watch import MAX_PATHS, Settling, Status, changes, folder_of


class Clock:
    """Files whose size a test says."""

    def __init__(self) -> None:
        self.sizes: dict[str, int] = {}

    def status_of(self, path: str) -> Status:
        size = self.sizes.get(path)
        return None if size is None else (size, 0)


def settling(clock: Clock) -> Settling:
    return Settling(settle_s=2, patience_s=30, status_of=clock.status_of)


def test_a_file_that_is_being_written_is_waited_for() -> None:
    clock = Clock()
    waiting = settling(clock)
    clock.sizes = {"/d/a": 1, "/d/b": 1}
    waiting.add({"/d/a", "/d/b", "/d/.a.swp", "/d/gone"}, 0)
    clock.sizes["/d/a"] = 2
    assert waiting.take(2) == set()  # `a` has grown since; no event is needed to see it
    assert waiting.take(3.9) == set()
    assert waiting.take(4) == {"/d/a", "/d/b", "/d/gone"}
    assert waiting.take(99) == set()


def test_a_file_that_never_rests_does_not_hold_others_for_ever() -> None:
    clock = Clock()
    waiting = settling(clock)
    waiting.add({"/d/log", "/d/b"}, 0)
    for now in range(30):
        clock.sizes["/d/log"] = now
        assert waiting.take(now) == set()
    clock.sizes["/d/log"] = 30
    assert waiting.take(30) == {"/d/b"}
    assert waiting.take(31) == set()
    assert waiting.take(32) == {"/d/log"}


def test_a_large_burst_is_kept_as_folders() -> None:
    waiting = settling(Clock())
    waiting.add([f"/d/{n}" for n in range(MAX_PATHS)], 0)
    waiting.add([f"/e/{n}" for n in range(MAX_PATHS)], 0)
    assert len(waiting.take(9)) == MAX_PATHS + 1


def test_changes_are_ingested_from_the_folder_that_holds_them(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    root = str(tmp_path)
    assert folder_of([f"{root}/a/b/x"], root) == f"{root}/a/b"
    assert folder_of([f"{root}/a/b/x", f"{root}/a/y"], root) == f"{root}/a"
    assert folder_of([f"{root}/a/gone/x"], root) == f"{root}/a"
    assert folder_of([root], root) == root


def test_a_change_is_seen(tmp_path: Path) -> None:
    stop = Event()
    found: list[str] = []

    def look() -> Iterator[None]:
        for paths in changes([str(tmp_path)], stop):
            found.extend(paths)
            if str(tmp_path / "sub" / "a.md") in found:
                stop.set()
            yield

    thread = Thread(target=lambda: list(look()), daemon=True)
    thread.start()
    deadline = time.monotonic() + 20
    (tmp_path / "sub").mkdir()
    while thread.is_alive() and time.monotonic() < deadline:
        (tmp_path / "sub" / "a.md").write_text(str(time.monotonic()))
        thread.join(0.2)
    stop.set()
    thread.join(5)
    assert str(tmp_path / "sub" / "a.md") in found
