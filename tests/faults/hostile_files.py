"""Small files that cost their reader much, made on the spot."""

import io
import os
import zipfile
from pathlib import Path

FONT = b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>"
# So many times as every figure twice, that no reader comes to the end of it.
LEVELS = 40
NESTING = 3000
BOMB_BYTES = 32 * 1024 * 1024


def endless_pdf() -> bytes:
    """Return 8 kB of PDF whose page draws a figure twice, which draws another twice, and so on."""
    resources = b"/Resources << /XObject << /X 10 0 R >> /Font << /F 5 0 R >> >>"
    objects = {
        1: b"<< /Type /Catalog /Pages 2 0 R >>",
        2: b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        3: b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 200 200] /Contents 4 0 R "
        + resources
        + b" >>",
        4: _stream(b"BT /F 12 Tf 10 10 Td (It never ends) Tj ET /X Do /X Do"),
        5: FONT,
    }
    for number in range(10, 10 + LEVELS):
        inside = b"/Resources << /XObject << /X %d 0 R >> >> " % (number + 1)
        objects[number] = _figure(b"/X Do /X Do", inside)
    inside = b"/Resources << /Font << /F 5 0 R >> >> "
    objects[10 + LEVELS] = _figure(b"BT /F 12 Tf 10 10 Td (x) Tj ET", inside)
    return _pdf(objects)


def circular_pdf() -> bytes:
    """Return a PDF whose page tree leads back to itself."""
    return _pdf(
        {
            1: b"<< /Type /Catalog /Pages 2 0 R >>",
            2: b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
            3: b"<< /Type /Pages /Kids [2 0 R 3 0 R] /Count 1 /Parent 2 0 R >>",
        }
    )


def zip_bomb() -> bytes:
    """Return 33 kB that unpack to a thousand times as much."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("zeros.txt", b"0" * BOMB_BYTES)
    return packed.getvalue()


def nested_json() -> bytes:
    """Return lists inside of lists, deeper than a reader that calls itself can follow."""
    return b"[" * NESTING + b'"deep inside"' + b"]" * NESTING


def badly_named(folder: Path) -> None:
    """Write a file whose name is Latin-1, not UTF-8."""
    with open(os.fsencode(folder) + b"/caf\xe9.txt", "wb") as file:
        file.write(b"A name of old.")


def sparse(path: Path, size_bytes: int) -> None:
    """Write a file of that size which takes no room."""
    with path.open("wb") as file:
        file.truncate(size_bytes)


def _figure(content: bytes, extra: bytes) -> bytes:
    return _stream(content, b"/Type /XObject /Subtype /Form /BBox [0 0 200 200] " + extra)


def _stream(content: bytes, extra: bytes = b"") -> bytes:
    head = b"<< /Length %d %s>>\nstream\n" % (len(content), extra)
    return head + content + b"\nendstream"


def _pdf(objects: dict[int, bytes]) -> bytes:
    out, at = bytearray(b"%PDF-1.4\n"), {}
    for number, body in objects.items():
        at[number] = len(out)
        out += b"%d 0 obj\n%s\nendobj\n" % (number, body)
    table, size = len(out), max(objects) + 1
    out += b"xref\n0 %d\n0000000000 65535 f \n" % size
    for number in range(1, size):
        out += b"%010d %s \n" % (at.get(number, 0), b"00000 n" if number in at else b"65535 f")
    out += b"trailer\n<< /Size %d /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n" % (size, table)
    return bytes(out)
