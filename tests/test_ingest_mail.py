"""Messages and mailboxes: what is attached stands below its name; damage costs one message."""

import re
from collections.abc import Sequence
from email.message import EmailMessage
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from embedserve.ingest.chunk import chunk
from embedserve.ingest.extract import ExtractorPool
from tests.test_ingest_archives import read, refused, zipped


def message(**attached: bytes) -> bytes:
    made = EmailMessage()
    made["Subject"] = "The report"
    made.set_content("Words of the message.")
    for name, content in attached.items():
        name = name.replace("_", ".")
        made.add_attachment(content, maintype="application", subtype="x", filename=name)
    return made.as_bytes()


def test_what_is_attached_to_a_message_is_read_below_it(
    pool: ExtractorPool, tmp_path: Path
) -> None:
    content = message(note_md=b"# Head\n\nAttached.", in_zip=zipped({"a.txt": b"deep"}), x_gif=b"G")
    found = read(pool, tmp_path, "a.eml", content)
    assert [member.name for member in found.members] == ["note.md", "in.zip/a.txt"]
    own = found.text[: found.members[0].start]
    assert "Words of the message." in own
    assert found.title == "The report"
    assert found.warnings[0].startswith("`x.gif` was left out (unsupported)")
    chunks = chunk(found.text, found.kind, (), words, members=found.members)
    assert [one.heading for one in chunks] == [(), ("note.md", "Head"), ("in.zip/a.txt",)]


def test_messages_of_a_mailbox_stand_below_their_subjects(
    pool: ExtractorPool, tmp_path: Path
) -> None:
    box = b"".join(b"From a@b Mon\n" + message(n_txt=b"more") + b"\n" for _ in range(2))
    found = read(pool, tmp_path, "a.mbox", box)
    names = [member.name for member in found.members]
    assert names == ["The report", "The report/n.txt"] * 2


def test_a_mailbox_without_marks_is_one_message(pool: ExtractorPool, tmp_path: Path) -> None:
    found = read(pool, tmp_path, "a.mbox", message())
    assert [member.name for member in found.members] == ["The report"]


DEEP = "".join(
    f'Content-Type: multipart/mixed; boundary="{number}"\n\n--{number}\n' for number in range(3_000)
).encode()


def test_a_damaged_message_costs_itself(pool: ExtractorPool, tmp_path: Path) -> None:
    messages = [message(), DEEP, message(n_txt=b"more")]
    box = b"".join(b"From a@b Mon\n" + one + b"\n" for one in messages)
    found = read(pool, tmp_path, "a.mbox", box)
    names = [member.name for member in found.members]
    assert names == ["The report", "The report", "The report/n.txt"]
    assert found.warnings[0].startswith("`Message 2` was left out (too_nested)")


def test_what_is_attached_without_a_name_is_read_or_named(
    pool: ExtractorPool, tmp_path: Path
) -> None:
    forwarded = EmailMessage()
    forwarded["Subject"] = "The first report"
    forwarded.set_content("Words that were forwarded.")
    forwarded.add_attachment(b"deep words", maintype="text", subtype="x", filename="deep.txt")
    made = EmailMessage()
    made.set_content("Own words.")
    made.add_attachment(forwarded)
    made.add_attachment("more words")
    made.add_attachment(b"\x00\x01", maintype="application", subtype="x")
    found = read(pool, tmp_path, "a.eml", made.as_bytes())
    assert [member.name for member in found.members] == ["deep.txt", "part 6 (text/plain)"]
    own = found.text[: found.members[0].start]
    assert own.count("Own words.") == own.count("Words that were forwarded.") == 1
    assert [warning.partition(" was left out")[0] for warning in found.warnings] == [
        "`part 7 (application/x)`"
    ]


def test_parts_in_parts_without_end_are_refused_by_name(
    pool: ExtractorPool, tmp_path: Path
) -> None:
    assert refused(pool, tmp_path, "a.eml", DEEP).code == "too_nested"
    content = zipped({"a.eml": DEEP, "b.txt": b"words"})
    assert [one.name for one in read(pool, tmp_path, "a.zip", content).members] == ["b.txt"]


def words(texts: Sequence[str]) -> list[NDArray[np.int64]]:
    return [
        np.array([match.span() for match in re.finditer(r"\S+", text)], dtype=np.int64)
        for text in texts
    ]
