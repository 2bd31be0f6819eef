"""Archives: one document each, members below their names; bombs; damage."""

import bz2
import gzip
import io
import lzma
import tarfile
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from embedserve.errors import ExtractionError
from embedserve.ingest.archives import Packed
from embedserve.ingest.extract import ExtractorPool
from embedserve.ingest.limits import ExtractLimits
from embedserve.ingest.members import read_members
from embedserve.ingest.readers import NamedRead, Page, Read
from embedserve.types import Extraction

MIB = 1024 * 1024
FILES = {
    "guide.md": b"# Guide\n\nHow to begin.",
    "src/main.py": b"def main():\n    # no title\n    return 1",
    "empty.txt": b"",
    "picture.gif": b"GIF89a",
    ".hidden": b"not read",
    "__MACOSX/guide.md": b"not read",
}


@pytest.fixture(scope="module")
def small() -> Iterator[ExtractorPool]:
    """Limits that small archives reach."""
    limits = ExtractLimits(archive_members=20, archive_bytes=6 * MIB, archive_depth=2)
    pool = ExtractorPool(1, limits)
    yield pool
    pool.close()


def zipped(files: dict[str, bytes]) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            # Of no present time: what names a test is the same in each process.
            archive.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED)
    return made.getvalue()


def tarred(files: dict[str, bytes]) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
        link = tarfile.TarInfo("link.txt")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    return made.getvalue()


def read(pool: ExtractorPool, folder: Path, name: str, content: bytes) -> Extraction:
    path = folder / name
    path.write_bytes(content)
    return pool.extract(path, folder)


def refused(pool: ExtractorPool, folder: Path, name: str, content: bytes) -> ExtractionError:
    with pytest.raises(ExtractionError) as caught:
        read(pool, folder, name, content)
    return caught.value


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.zip", zipped(FILES)),
        ("a.tar", tarred(FILES)),
        ("a.tar.gz", gzip.compress(tarred(FILES), mtime=0)),
        ("a.tgz", gzip.compress(tarred(FILES), mtime=0)),
        ("a.tar.bz2", bz2.compress(tarred(FILES))),
        ("a.tar.xz", lzma.compress(tarred(FILES))),
        ("backup.2024", gzip.compress(tarred(FILES), mtime=0)),
    ],
)
def test_members_stand_below_their_names(
    small: ExtractorPool, tmp_path: Path, name: str, content: bytes
) -> None:
    found = read(small, tmp_path, name, content)
    assert [(member.name, member.kind) for member in found.members] == [
        ("guide.md", "markdown"),
        ("src/main.py", "code"),
    ]
    guide, code = (found.text[member.start : member.end] for member in found.members)
    assert guide == "# guide.md\n\n# Guide\n\nHow to begin."
    assert code == "# src/main.py\n\n" + FILES["src/main.py"].decode()
    assert "not read" not in found.text
    assert [warning.partition(" ")[0] for warning in found.warnings] == [
        "`empty.txt`",
        "`picture.gif`",
    ]
    assert found.title == name.rpartition(".")[0]


def test_one_compressed_file_is_read_by_the_name_inside(
    small: ExtractorPool, tmp_path: Path
) -> None:
    found = read(small, tmp_path, "notes.md.gz", gzip.compress(b"# Head\n\nWords."))
    assert [(member.name, member.kind) for member in found.members] == [("notes.md", "markdown")]


def test_archives_in_archives_are_opened_to_a_depth(small: ExtractorPool, tmp_path: Path) -> None:
    inner = zipped({"deep.txt": b"deep words"})
    found = read(small, tmp_path, "a.zip", zipped({"in.zip": inner}))
    assert found.members[0].name == "in.zip/deep.txt"
    twice = zipped({"one.txt": b"words", "out.zip": zipped({"in.zip": inner})})
    found = read(small, tmp_path, "b.zip", twice)
    assert [member.name for member in found.members] == ["one.txt"]
    assert "too_nested" in found.warnings[0]


def test_names_lead_nowhere(small: ExtractorPool, tmp_path: Path) -> None:
    files = {"../../etc/passwd": b"words", "/abs\n# Title": b"more"}
    found = read(small, tmp_path, "a.zip", zipped(files))
    assert [member.name for member in found.members] == ["etc/passwd", "abs # Title"]


@pytest.mark.parametrize(
    ("name", "content", "setting"),
    [
        ("ratio.zip", zipped({"a.txt": b" " * (5 * MIB)}), "ARCHIVE_RATIO"),
        ("ratio.gz", gzip.compress(b" " * (5 * MIB), mtime=0), "ARCHIVE_RATIO"),
        (
            "bytes.tar",
            tarred({f"{number}.txt": b"x " * MIB for number in range(4)}),
            "ARCHIVE_BYTES",
        ),
        ("many.zip", zipped({f"{number}.txt": b"word" for number in range(21)}), "ARCHIVE_MEMBERS"),
        (
            "nested.zip",
            zipped({"in.zip": zipped({f"{number}.txt": b"w" for number in range(21)})}),
            "ARCHIVE_MEMBERS",
        ),
    ],
)
def test_a_bomb_costs_itself(
    small: ExtractorPool, tmp_path: Path, name: str, content: bytes, setting: str
) -> None:
    error = refused(small, tmp_path, name, content)
    assert (error.code, error.stage, error.is_retryable) == ("too_large", "extract", False)
    assert f"EMBEDSERVE_{setting}" in error.hint


@pytest.mark.parametrize(
    ("name", "content", "code"),
    [
        ("cut.zip", zipped(FILES)[:100], "corrupt"),
        ("cut.tar.gz", gzip.compress(tarred(FILES), mtime=0)[:200], "corrupt"),
        ("no.zip", b"words, and no archive", "corrupt"),
        ("void.zip", zipped({}), "no_text"),
        ("void.tar", tarred({}), "no_text"),
        ("pictures.zip", zipped({"a.gif": b"GIF89a", "b.gif": b"GIF89a"}), "unsupported"),
    ],
)
def test_an_archive_that_gives_nothing_says_why(
    small: ExtractorPool, tmp_path: Path, name: str, content: bytes, code: str
) -> None:
    assert refused(small, tmp_path, name, content).code == code


def test_what_came_before_the_damage_is_kept(small: ExtractorPool, tmp_path: Path) -> None:
    whole = tarred({"a.txt": b"first words", "b.txt": b"second " * 3_000})
    found = read(small, tmp_path, "a.tar", whole[:5_000])
    assert [member.name for member in found.members] == ["a.txt"]
    assert "`the rest` was left out (corrupt)" in found.warnings[-1]


def test_damaged_archives_inside_do_not_count_as_depth(
    small: ExtractorPool, tmp_path: Path
) -> None:
    files = {f"{number}.zip": b"PK, but no archive" for number in range(3)}
    files["z.zip"] = zipped({"deep.txt": b"deep words"})
    found = read(small, tmp_path, "a.zip", zipped(files))
    assert [member.name for member in found.members] == ["z.zip/deep.txt"]


def test_a_damaged_member_is_left_out_and_named(small: ExtractorPool, tmp_path: Path) -> None:
    content = bytearray(zipped({"a.txt": b"first words", "b.txt": b"second words"}))
    content[35 + 8] ^= 0xFF  # in the packed bytes of the first
    found = read(small, tmp_path, "a.zip", bytes(content))
    assert [member.name for member in found.members] == ["b.txt"]
    assert found.warnings[0].startswith("`a.txt` was left out (corrupt)")


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_member_packed_in_another_way_costs_itself(
    small: ExtractorPool, tmp_path: Path, method: int
) -> None:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        archive.writestr("a.txt", b" " * (64 * MIB), compress_type=method)
        archive.writestr("b.txt", b"second words")
    found = read(small, tmp_path, "a.zip", made.getvalue())
    assert [member.name for member in found.members] == ["b.txt"]
    assert found.warnings[0].startswith("`a.txt` was left out (unsupported)")


def test_what_was_read_in_time_is_kept_and_the_rest_is_said() -> None:
    deadline = time.monotonic() + 0.3

    def read_slowly(member: Packed) -> NamedRead:
        if member.name == "2":
            time.sleep(max(0.0, deadline - time.monotonic()) + 0.01)
        return NamedRead(member.name, Read([Page(None, "words")], "text"))

    found = read_members((Packed(str(number), b"x") for number in range(9)), read_slowly, deadline)
    assert [one.name for one in found.inside] == ["0", "1", "2"]
    assert found.warnings()[0].startswith("`the rest` was left out (timed_out)")


def test_an_archive_ends_in_time_with_what_it_has_by_then(tmp_path: Path) -> None:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        for number in range(60):
            archive.writestr(f"{number}.xml", "<a>" + "<b>x</b>" * 60_000 + "</a>")
    pool = ExtractorPool(1, ExtractLimits(timeout_s=2))
    found = read(pool, tmp_path, "a.zip", made.getvalue())
    pool.close()
    assert 0 < len(found.members) < 60
    assert found.warnings[0].startswith("`the rest` was left out (timed_out)")


def test_warnings_of_members_are_said_below_their_names(
    small: ExtractorPool, tmp_path: Path
) -> None:
    inner = zipped({"a.txt": b"words", "x.gif": b"GIF89a"})
    found = read(small, tmp_path, "a.zip", zipped({"in.zip": inner}))
    assert found.warnings[0].startswith("`in.zip`: `x.gif` was left out (unsupported)")
    found = read(small, tmp_path, "b.zip", zipped({f"{number}.zip": inner for number in range(6)}))
    assert len(found.warnings) == 6
    gifs = {f"{number}.gif": b"GIF89a" for number in range(7)}
    inner = zipped({"a.txt": b"words", **gifs})
    found = read(small, tmp_path, "c.zip", zipped({"in.zip": inner, **gifs}))
    assert found.warnings[-1] == "5 more warnings were left out."
