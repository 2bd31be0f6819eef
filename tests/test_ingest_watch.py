"""Changes are gathered until files have been left alone."""

from pathlib import Path

from embedserve.ingest.watch import MAX_PATHS, Settling, Status, folder_of


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
