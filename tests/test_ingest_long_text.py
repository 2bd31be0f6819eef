"""Long texts: read piece by piece as they are read whole, bounded, and watched."""

import sys
import threading
import time
import unicodedata
from collections.abc import Iterator
from pathlib import Path

import pytest

from embedserve.errors import ExtractionError
from embedserve.ingest import decode
from embedserve.ingest.extract import ExtractorPool
from embedserve.ingest.limits import ExtractLimits
from embedserve.ingest.long_text import clean_pieces, joins_former
from embedserve.types import Extraction

MIXED = "Grüße, e\u0301 \r\n\x0b naïve 日本語 한국어 \u1112\u1161\u11ab \ufefffin\r"
FILES = {
    "utf8.txt": (MIXED + "and many more words without controls in them, ").encode() * 20_000,
    "mark.md": ("\ufeff---\ntitle: Mine\n---\n# Head\n\n" + "text ü\n" * 9000).encode(),
    "latin.log": "Grüße aus Köln, schöne Straße\n".encode("latin-1") * 50_000,
    "cyrillic.txt": "Привет мир, как дела\n".encode("cp1251") * 70_000,
    "japanese.txt": "日本語のテキストです。これはテスト。\n".encode("cp932") * 40_000,
    "sixteen.txt": ("plain ü text \U0001f600\n" * 60_000).encode("utf-16"),
    "late.txt": b"plain words\n" * 100_000 + "später\n".encode("latin-1"),
    "rows.jsonl": b'{"a": 1}\n' * 9000,
    "code.py": b"def f(x):\n    return x\n" * 9000,
    "table.csv": b'name,note\nx,"two\nlines"\ny,a|b\nlast\n\n' * 30_000,
    "semicolons.csv": "näme;b\nü;2\n".encode("latin-1") * 9000,
    "tabs.tsv": b"a,b\tc\n1,2\t3\n" * 9000,
}


@pytest.fixture(scope="module")
def whole() -> Iterator[ExtractorPool]:
    pool = ExtractorPool(1, ExtractLimits(stream_above_bytes=100_000_000))
    yield pool
    pool.close()


@pytest.fixture(scope="module")
def streaming() -> Iterator[ExtractorPool]:
    pool = ExtractorPool(1, ExtractLimits(stream_above_bytes=1000, max_stream_bytes=9_000_000))
    yield pool
    pool.close()


def text_of(extraction: Extraction) -> str:
    assert extraction.long_text is not None
    pieces = list(extraction.long_text.pieces())
    extraction.long_text.close()
    assert sum(map(len, pieces)) == extraction.length
    return "".join(pieces)


@pytest.mark.parametrize("name", FILES)
def test_a_long_text_is_what_is_read_of_it_whole(
    whole: ExtractorPool, streaming: ExtractorPool, tmp_path: Path, name: str
) -> None:
    (tmp_path / name).write_bytes(FILES[name])
    one, other = (pool.extract(tmp_path / name, tmp_path) for pool in (whole, streaming))
    assert one.long_text is None
    assert text_of(other).rstrip("\n") == one.text
    for field in ("kind", "title", "sha256", "size_bytes"):
        assert getattr(other, field) == getattr(one, field), field
    # The library guesses encodings without a word.
    assert other.warnings == one.warnings or name.endswith(".csv")


@pytest.mark.parametrize(
    ("name", "content", "code"),
    [
        ("blank.txt", b" \n" * 9000, "no_text"),
        ("binary.txt", bytes(range(256)) * 90, "unsupported"),
        ("nameless", bytes(range(256)) * 90, "unsupported"),
        ("huge.txt", b"word " * 2_000_000, "too_large"),
        ("quote.csv", b'a,b\n1,"' + b"no end, " * 200_000, "corrupt"),
        ("oneline.csv", b"a," * 2_100_000, "corrupt"),
    ],
)
def test_what_gives_no_text_says_why(
    streaming: ExtractorPool, tmp_path: Path, name: str, content: bytes, code: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ExtractionError) as caught:
        streaming.extract(tmp_path / name, tmp_path)
    assert caught.value.code == code
    assert caught.value.hint
    assert ("EMBEDSERVE_MAX_STREAM_BYTES" in caught.value.hint) is (code == "too_large")


def test_the_limit_of_whole_files_holds_for_what_is_no_text_after_all(tmp_path: Path) -> None:
    pool = ExtractorPool(1, ExtractLimits(max_file_bytes=5000))
    (tmp_path / "a.txt").write_bytes(b"%PDF-1.4 " * 1000)
    (tmp_path / "b.pdf").write_bytes(b"%PDF-1.4 " * 1000)
    (tmp_path / "c.txt").write_bytes(b"some words " * 1000)
    try:
        for name in ("a.txt", "b.pdf"):
            with pytest.raises(ExtractionError, match="9000 bytes") as caught:
                pool.extract(tmp_path / name, tmp_path)
            assert "EMBEDSERVE_MAX_FILE_BYTES" in caught.value.hint
        assert text_of(pool.extract(tmp_path / "c.txt", tmp_path)).startswith("some words")
    finally:
        pool.close()


def test_a_file_that_changes_while_it_is_read_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "growing.log"
    path.write_bytes(b"a line of a log\n" * 1_000_000)
    size = path.stat().st_size
    is_over = threading.Event()

    def grow() -> None:
        while not is_over.wait(0.001):
            with path.open("ab") as file:
                file.write(b"one more\n")

    pool, writer = ExtractorPool(1, ExtractLimits()), threading.Thread(target=grow)
    writer.start()
    try:
        found = pool.extract(path, tmp_path)
    finally:
        is_over.set()
        writer.join()
        pool.close()
    assert found.size_bytes >= size
    assert "It changed while it was read; the next run reads it again." in found.warnings
    text_of(found)


def test_whoever_gives_up_a_long_text_gets_the_next_file(
    streaming: ExtractorPool, tmp_path: Path
) -> None:
    (tmp_path / "long.txt").write_bytes(b"some words " * 700_000)
    (tmp_path / "short.txt").write_bytes(b"short")
    started = time.monotonic()
    with pytest.raises(ExtractionError) as caught:
        streaming.extract(
            tmp_path / "long.txt", tmp_path, is_abandoned=lambda: time.monotonic() > started
        )
    assert caught.value.code == "abandoned"
    assert streaming.extract(tmp_path / "short.txt", tmp_path).text == "short"


def test_cleaning_in_pieces_is_cleaning_the_whole() -> None:
    for size in (1, 2, 3, 7, 1000):
        text = MIXED * 20
        pieces = [text[start : start + size] for start in range(0, len(text), size)]
        assert "".join(clean_pieces(pieces)) == decode.clean(text)


def test_no_border_lies_before_what_is_composed_with_a_former_character() -> None:
    """Over all of Unicode as this Python knows it."""
    for number in range(sys.maxunicode + 1):
        first, *rest = unicodedata.decomposition(chr(number)).split() or [""]
        if rest and not first.startswith("<"):
            assert joins_former(chr(int(rest[0], 16))), hex(number)
    assert unicodedata.normalize("NFC", "가\u11a8") == "각"
    assert joins_former("\u11a8")
