"""Extraction in jailed workers: encodings, formats made on the spot, limits, deaths."""

import hashlib
import os
import signal
import sys
import threading
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from embedserve.errors import ExtractionError
from embedserve.ingest.extract import ExtractorPool
from embedserve.ingest.limits import ExtractLimits
from embedserve.ingest.worker_process import FILES_PER_WORKER
from tests.store_samples import wait_until

MIB = 1024 * 1024


@pytest.fixture
def workers() -> "Workers":
    return Workers()


class Workers:
    """The extraction processes that appeared below this process since the fixture was made."""

    def __init__(self) -> None:
        self.before = self._all()

    def new(self) -> set[int]:
        return self._all() - self.before

    @staticmethod
    def _all() -> set[int]:
        found = set()
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                parent = (folder / "stat").read_text().rpartition(")")[2].split()[1]
                command = (folder / "cmdline").read_bytes()
            except OSError:
                continue
            if int(parent) == os.getpid() and b"extract_worker" in command:
                found.add(int(folder.name))
        return found


def write(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def refused(pool: ExtractorPool, path: Path, root: Path | None = None) -> ExtractionError:
    with pytest.raises(ExtractionError) as caught:
        pool.extract(path, root or path.parent)
    return caught.value


def slow_file(folder: Path) -> Path:
    """Several seconds of parsing; nothing about it is special but its size."""
    return write(folder, "slow.xml", "<a>" + "<b>x</b>" * 3_000_000 + "</a>")


# -- text -------------------------------------------------------------------------------------


def test_text_is_kept_and_hashed_as_it_was_read(pool: ExtractorPool, tmp_path: Path) -> None:
    content = "Zeile eins\r\nSee\u0000le \u0301\r\n".encode().replace(b"\0", b"")
    found = pool.extract(write(tmp_path, "notes.txt", content), tmp_path)
    assert found.text.startswith("Zeile eins\nSeele")
    assert found.sha256 == hashlib.sha256(content).hexdigest()
    assert (found.kind, found.title, found.size_bytes) == ("text", "notes", len(content))


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32", "utf-16-le", "utf-16-be"])
def test_unicode_encodings_are_recognised(
    pool: ExtractorPool, tmp_path: Path, encoding: str
) -> None:
    text = "Größe und naïve façade, plain words follow here"
    assert pool.extract(write(tmp_path, "a.txt", text.encode(encoding)), tmp_path).text == text


def test_a_guessed_encoding_is_said(pool: ExtractorPool, tmp_path: Path) -> None:
    found = pool.extract(write(tmp_path, "a.txt", "café".encode("cp1252")), tmp_path)
    assert found.text == "café"
    assert "Windows-1252" in found.warnings[0]


def test_letters_are_composed_and_controls_removed(pool: ExtractorPool, tmp_path: Path) -> None:
    found = pool.extract(write(tmp_path, "a.md", "cafe\u0301 \x07" + "word " * 50), tmp_path)
    assert found.text.startswith("café word")


def test_markdown_is_kept_and_its_title_found(pool: ExtractorPool, tmp_path: Path) -> None:
    text = '---\ntitle: "The Guide"\n---\n\n# Head\n\n[link](http://x/) a\\_b'
    found = pool.extract(write(tmp_path, "a.md", text), tmp_path)
    assert (found.text, found.title, found.kind) == (text, "The Guide", "markdown")
    found = pool.extract(write(tmp_path, "b.md", "# Head\n\nbody"), tmp_path)
    assert found.title == "Head"


def test_source_code_and_names_without_suffix(pool: ExtractorPool, tmp_path: Path) -> None:
    assert pool.extract(write(tmp_path, "a.py", "x = 1"), tmp_path).kind == "code"
    assert pool.extract(write(tmp_path, "LICENSE", "Free."), tmp_path).text == "Free."


def test_html_gives_its_words_without_scripts_menus_and_targets(
    pool: ExtractorPool, tmp_path: Path
) -> None:
    page = (
        "<html><head><title>A &amp; B</title><meta name=x content=METANOISE>"
        "<style>p{color:STYLENOISE}</style><script>SCRIPTNOISE</script></head><body>"
        "<nav><a href=/>NAVNOISE</a></nav><h1>Head</h1><p>Some <a href=http://URLNOISE/>link</a>"
        " a_b</p><pre>code()</pre></body></html>"
    )
    found = pool.extract(write(tmp_path, "a.html", page), tmp_path)
    assert found.title == "A & B"
    assert "NOISE" not in found.text
    assert found.text.startswith("# Head\n\nSome link a_b")
    latin = "<meta charset=iso-8859-2><p>Łódź</p>".encode("iso-8859-2")
    assert pool.extract(write(tmp_path, "l.html", latin), tmp_path).text == "Łódź"


def test_xml_gives_its_words(pool: ExtractorPool, tmp_path: Path) -> None:
    found = pool.extract(write(tmp_path, "a.xml", "<r><t>Hello <b>you</b></t></r>"), tmp_path)
    assert found.text == "b: you\nt: Hello"
    broken = pool.extract(write(tmp_path, "b.xml", "<r>words"), tmp_path)
    assert broken.text == "<r>words"
    assert broken.warnings


@pytest.mark.parametrize(
    ("name", "content", "code"),
    [
        ("a.txt", b"", "empty_file"),
        ("a.md", b" \n\n", "no_text"),
        ("a.bin", bytes(range(256)) * 20, "unsupported"),
        ("a.txt", b"text" + bytes(100) + b"text", "unsupported"),
        ("a.png", b"\x89PNG\r\n", "unsupported"),
        ("a.zip", b"PK\x03\x04", "corrupt"),
        ("a.7z", b"7z\xbc\xaf\x27\x1c", "unsupported"),
        ("a.pdf", b"%PDF-1.4 nonsense", "corrupt"),
        ("a.docx", b"PK\x03\x04 nonsense", "corrupt"),
        ("a.pdf", b"x" * (9 * MIB), "too_large"),
        ("a.txt", b"x" * (5 * MIB), "text_too_large"),
    ],
)
def test_what_gives_no_text_has_a_code(
    pool: ExtractorPool, tmp_path: Path, name: str, content: bytes, code: str
) -> None:
    error = refused(pool, write(tmp_path, name, content))
    assert error.code == code
    assert name in error.message
    assert not error.is_retryable
    if code == "too_large":
        assert "EMBEDSERVE_MAX_FILE_BYTES" in error.hint


def test_only_regular_files_inside_the_root_are_opened(pool: ExtractorPool, tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    outside = write(tmp_path, "secret.txt", "secret")
    (root / "link.txt").symlink_to(outside)
    (root / "loop.txt").symlink_to(root / "loop.txt")
    os.mkfifo(root / "fifo.txt")
    assert refused(pool, outside, root).code == "outside_root"
    assert refused(pool, root / "link.txt").code == "outside_root"
    assert refused(pool, root / ".." / "secret.txt", root).code == "outside_root"
    assert refused(pool, root / "fifo.txt").code == "not_a_file"
    assert refused(pool, root / "nothing.txt").code == "not_found"
    assert refused(pool, root / "loop.txt").code == "permission_denied"
    assert pool.extract(outside, outside).text == "secret"


# -- faults -----------------------------------------------------------------------------------


def test_a_file_that_takes_too_long_costs_that_file_only(tmp_path: Path) -> None:
    pool = ExtractorPool(1, ExtractLimits(timeout_s=0.5))
    try:
        error = refused(pool, slow_file(tmp_path))
        assert (error.code, error.is_retryable) == ("timed_out", True)
        assert pool.extract(write(tmp_path, "a.txt", "fine"), tmp_path).text == "fine"
    finally:
        pool.close()


def test_a_worker_killed_in_the_middle_costs_that_file_only(
    tmp_path: Path, workers: Workers
) -> None:
    pool = ExtractorPool(1, ExtractLimits())
    try:
        pool.protections()
        (worker,) = workers.new()
        threading.Timer(0.5, os.kill, (worker, signal.SIGKILL)).start()
        error = refused(pool, slow_file(tmp_path))
        assert (error.code, error.is_retryable) == ("extractor_died", True)
        assert "SIGKILL" in error.message
        assert pool.extract(write(tmp_path, "a.txt", "fine"), tmp_path).text == "fine"
    finally:
        pool.close()


def test_a_worker_killed_while_idle_costs_nothing(tmp_path: Path, workers: Workers) -> None:
    pool = ExtractorPool(1, ExtractLimits())
    try:
        pool.protections()
        (worker,) = workers.new()
        os.kill(worker, signal.SIGKILL)
        time.sleep(0.2)
        assert pool.extract(write(tmp_path, "a.txt", "fine"), tmp_path).text == "fine"
    finally:
        pool.close()


def test_memory_is_limited(tmp_path: Path) -> None:
    pool = ExtractorPool(1, ExtractLimits(memory_bytes=256 * MIB))
    try:
        with zipfile.ZipFile(tmp_path / "a.docx", "w", zipfile.ZIP_DEFLATED) as bomb:
            bomb.writestr("[Content_Types].xml", "<Types/>")
            bomb.writestr("word/document.xml", b"<a>" + b" " * (400 * MIB))
        assert refused(pool, tmp_path / "a.docx").code in ("out_of_memory", "corrupt")
        error = refused(pool, write(tmp_path, "a.html", "ä" * (48 * MIB)))  # read as a whole
        assert error.code == "out_of_memory"
        assert "EMBEDSERVE_EXTRACT_MEMORY_BYTES" in error.hint
        assert pool.extract(write(tmp_path, "b.txt", "fine"), tmp_path).text == "fine"
    finally:
        pool.close()


def test_workers_start_when_needed_and_are_replaced_after_many_parsed_files(
    tmp_path: Path, workers: Workers
) -> None:
    pool = ExtractorPool(2, ExtractLimits())
    try:
        assert workers.new() == set()
        plain = write(tmp_path, "a.txt", "fine")
        parsed = write(tmp_path, "a.html", "<p>fine</p>")
        pool.extract(parsed, tmp_path)
        (first,) = workers.new()
        for _ in range(FILES_PER_WORKER):
            pool.extract(plain, tmp_path)
        for _ in range(FILES_PER_WORKER - 2):
            pool.extract(parsed, tmp_path)
        assert workers.new() == {first}
        pool.extract(parsed, tmp_path)
        assert workers.new() == set()
        pool.extract(plain, tmp_path)
        assert first not in workers.new()
    finally:
        pool.close()
    assert workers.new() == set()


def test_parsers_are_loaded_for_the_first_file_that_needs_them(
    tmp_path: Path, workers: Workers
) -> None:
    pool = ExtractorPool(1, ExtractLimits())
    try:
        assert pool.extract(write(tmp_path, "a.md", "# Fine"), tmp_path).text == "# Fine"
        assert refused(pool, write(tmp_path, "b.md", "***")).code == "no_text"
        (light,) = workers.new()
        assert not loads_parsers(light)
        rtf = write(tmp_path, "c.txt", "{\\rtf1 Not what its name says}")
        assert pool.extract(rtf, tmp_path).text == "Not what its name says"
        (parsing,) = workers.new()
        assert loads_parsers(parsing)
        assert pool.extract(write(tmp_path, "d.md", "fine"), tmp_path).text == "fine"
        assert workers.new() == {parsing}
    finally:
        pool.close()


def loads_parsers(pid: int) -> bool:
    return "kreuzberg" in Path(f"/proc/{pid}/maps").read_text()


def test_quick_files_that_come_together_share_a_worker(tmp_path: Path, workers: Workers) -> None:
    pool = ExtractorPool(2, ExtractLimits())
    path = write(tmp_path, "a.txt", "fine")
    try:
        pool.protections()  # one has started
        with ThreadPoolExecutor(4) as threads:
            texts = [threads.submit(pool.extract, path, tmp_path) for _ in range(40)]
        assert {text.result().text for text in texts} == {"fine"}
        assert len(workers.new()) == 1
    finally:
        pool.close()


def test_a_file_that_waits_for_a_slow_one_gets_a_worker_of_its_own(
    tmp_path: Path, workers: Workers
) -> None:
    pool = ExtractorPool(2, ExtractLimits())
    path = slow_file(tmp_path)
    with ThreadPoolExecutor(2) as threads:
        slow = [threads.submit(refused, pool, path) for _ in range(2)]
        try:
            wait_until(lambda: len(workers.new()) == 2, within_s=20)
        finally:
            pool.close()
        assert {error.result().code for error in slow} == {"shutting_down"}


def test_a_closed_pool_ends_running_calls_and_refuses_new_ones(tmp_path: Path) -> None:
    pool = ExtractorPool(1, ExtractLimits())
    path = slow_file(tmp_path)
    with ThreadPoolExecutor(1) as threads:
        pool.protections()
        running = threads.submit(refused, pool, path)
        time.sleep(0.3)
        started = time.monotonic()
        pool.close()
        assert running.result().code == "shutting_down"
        assert time.monotonic() - started < 5
    assert refused(pool, path).code == "shutting_down"


def test_the_worker_gets_no_secret(
    tmp_path: Path, workers: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EMBEDSERVE_SECRET_FOR_TEST", "hidden")
    pool = ExtractorPool(1, ExtractLimits())
    try:
        pool.protections()
        (worker,) = workers.new()
        try:
            environment = Path(f"/proc/{worker}/environ").read_bytes()
        except PermissionError:
            pytest.skip("the worker is not dumpable, and this user may not look")
        assert b"hidden" not in environment
    finally:
        pool.close()


def test_the_parent_never_imports_the_extraction_library() -> None:
    assert "kreuzberg" not in sys.modules


def test_a_text_that_begins_with_blank_lines_keeps_its_offsets(
    pool: ExtractorPool, tmp_path: Path
) -> None:
    (tmp_path / "a.md").write_text("\n\n# First\n\nText.\n\n", encoding="utf-8")
    assert pool.extract(tmp_path / "a.md", tmp_path).text == "\n\n# First\n\nText."
