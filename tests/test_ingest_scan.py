import os
import socket
from pathlib import Path

import pytest

from embedserve.errors import PathNotFoundError
from embedserve.ingest.scan import ScanRules, plan, scan
from embedserve.types import FileProblem, FoundFile, KnownFile


def names(root: Path, rules: ScanRules | None = None) -> list[str]:
    found, problems = look(root, rules)
    assert problems == []
    return [os.path.relpath(file.path, root.resolve()) for file in found]


def look(
    root: Path, rules: ScanRules | None = None
) -> tuple[list[FoundFile], list[tuple[str, str]]]:
    problems: list[FileProblem] = []
    found = list(scan(root, rules or ScanRules(), problems.append))
    assert all(problem.message and problem.stage == "scan" for problem in problems)
    return found, [(Path(problem.path).name, problem.code) for problem in problems]


def write(root: Path, *paths: str, text: str = "x") -> None:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)


def test_files_come_in_a_fixed_order_with_size_and_time(tmp_path: Path) -> None:
    write(tmp_path, "b.md", "a/z.md", "a/c/d.md", "c.md")
    found, _ = look(tmp_path)
    assert [Path(file.path).name for file in found] == ["b.md", "c.md", "z.md", "d.md"]
    assert found[0].size_bytes == 1
    assert found[0].mtime_ns == (tmp_path / "b.md").stat().st_mtime_ns


def test_hidden_and_generated_folders_are_never_entered(tmp_path: Path) -> None:
    write(tmp_path, ".git/a", "node_modules/a", "__pycache__/a", ".venv/a", ".x/a", ".env", "k.md")
    assert names(tmp_path) == ["k.md"]


def test_include_and_exclude_globs(tmp_path: Path) -> None:
    write(tmp_path, "a.md", "b.txt", "sub/c.md", "drafts/d.md")
    assert names(tmp_path, ScanRules(include=("*.md",))) == ["a.md", "drafts/d.md", "sub/c.md"]
    rules = ScanRules(include=("*.md",), exclude=("drafts/",))
    assert names(tmp_path, rules) == ["a.md", "sub/c.md"]


def test_ignore_files_hold_and_the_nearest_one_has_the_last_word(tmp_path: Path) -> None:
    write(tmp_path, "a.log", "b.md", "sub/c.log", "sub/d.log", "build/e.md")
    write(tmp_path, ".gitignore", text="*.log\n/build/\n")
    write(tmp_path, "sub/.embedserveignore", text="!c.log\n")
    assert names(tmp_path) == ["b.md", "sub/c.log"]


def test_a_single_file_can_be_the_root(tmp_path: Path) -> None:
    write(tmp_path, "a.md")
    assert [file.path for file in look(tmp_path / "a.md")[0]] == [str(tmp_path / "a.md")]


def test_a_missing_root_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(PathNotFoundError):
        look(tmp_path / "nothing")


def test_links_inside_are_followed_once_and_loops_end(tmp_path: Path) -> None:
    write(tmp_path, "real/a.md", ".store/b.md")
    (tmp_path / "again").symlink_to(tmp_path / "real")
    (tmp_path / "real/up").symlink_to(tmp_path)
    (tmp_path / "b.md").symlink_to(tmp_path / ".store/b.md")
    (tmp_path / "b2.md").symlink_to(tmp_path / ".store/b.md")
    assert names(tmp_path) == ["real/a.md", ".store/b.md"]


def test_links_that_lead_out_or_nowhere_are_reported(tmp_path: Path) -> None:
    inside, outside = tmp_path / "in", tmp_path / "in-not"
    write(tmp_path, "in/a.md", "in-not/secret.md")
    (inside / "out").symlink_to(outside)
    (inside / "gone").symlink_to(inside / "nothing")
    (inside / "self").symlink_to(inside / "self")
    found, problems = look(inside)
    assert [file.path for file in found] == [str(inside / "a.md")]
    assert problems == [("gone", "broken_link"), ("out", "outside_root"), ("self", "broken_link")]


def test_what_is_no_regular_file_is_skipped(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo.md")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket.md"))
        assert names(tmp_path) == []


def test_a_name_that_is_not_utf8_is_reported(tmp_path: Path) -> None:
    with open(os.fsencode(tmp_path) + b"/caf\xe9.md", "wb"):
        pass
    found, problems = look(tmp_path)
    assert found == []
    assert problems == [("caf\\xe9.md", "bad_file_name")]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every folder")
def test_an_unreadable_folder_is_reported_and_the_walk_goes_on(tmp_path: Path) -> None:
    write(tmp_path, "closed/a.md", "open/b.md")
    (tmp_path / "closed").chmod(0)
    try:
        found, problems = look(tmp_path)
    finally:
        (tmp_path / "closed").chmod(0o700)
    assert [Path(file.path).name for file in found] == ["b.md"]
    assert problems == [("closed", "permission_denied")]


def test_a_folder_that_cannot_be_listed_is_reported_and_the_walk_goes_on(tmp_path: Path) -> None:
    # Longer than any path may be: scandir refuses it, for root as well.
    write(tmp_path, "z.md")
    here = os.getcwd()
    try:
        os.chdir(tmp_path)
        for _ in range(20):
            os.mkdir("d" * 250)
            os.chdir("d" * 250)
    finally:
        os.chdir(here)
    found, problems = look(tmp_path)
    assert [Path(file.path).name for file in found] == ["z.md"]
    assert problems == [("d" * 250, "permission_denied")]


def known(
    path: str, size: int = 1, mtime: int = 1, *, code: str = "", retry: bool = False
) -> KnownFile:
    problem = FileProblem(path, code, "extract", "no", is_retryable=retry) if code else None
    return KnownFile(path, size, mtime, "0" * 64, problem)


def test_plan_compares_size_and_time() -> None:
    found = [FoundFile("/r/new", 1, 1), FoundFile("/r/same", 1, 1), FoundFile("/r/grown", 2, 1)]
    found += [FoundFile("/r/touched", 1, 2), FoundFile("/r/bad", 1, 1), FoundFile("/r/late", 1, 1)]
    before = [known("/r/same"), known("/r/grown"), known("/r/touched"), known("/r/gone")]
    before += [known("/r/bad", code="corrupt"), known("/r/late", code="timed_out", retry=True)]
    result = plan(found, {file.path: file for file in before})
    assert [file.path for file in result.add] == ["/r/new"]
    assert [file.path for file in result.update] == ["/r/grown", "/r/touched", "/r/late"]
    assert [file.path for file in result.unchanged] == ["/r/same", "/r/bad"]
    assert result.delete == ("/r/gone",)


def test_plan_deletes_nothing_below_a_folder_that_could_not_be_read() -> None:
    before = [known("/r/closed/a"), known("/r/closed-not/b")]
    result = plan([], {file.path: file for file in before}, unseen=["/r/closed"])
    assert [file.path for file in result.unchanged] == ["/r/closed/a"]
    assert result.delete == ("/r/closed-not/b",)
