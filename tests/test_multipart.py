"""Forms as streams: whatever the pieces, the same parts; what is no form is refused."""

import pytest

from embedserve.api.multipart import MultipartParser, PartBegins, PartBytes, PartEnds, boundary_of
from embedserve.errors import InvalidRequestError

FORM = (
    b"what comes before is ignored\r\n--b\r\n"
    b'Content-Disposition: form-data; name="title"\r\n\r\nA title\r\n--b\r\n'
    b'content-disposition: form-data; name="file"; filename="../\xc3\xbc \\"x\\".md"\r\n'
    b"Content-Type: text/plain\r\n\r\n\r\n--x\r\n-\r\n--\r\n\r\n--b\r\n"
    b'Content-Disposition: form-data; name="file"; filename="empty"\r\n\r\n\r\n--b--\r\nafter'
)
PARTS = [
    ("title", None, b"A title"),
    ("file", '../ü "x".md', b"\r\n--x\r\n-\r\n--\r\n"),
    ("file", "empty", b""),
]


def parts_of(pieces: list[bytes]) -> list[tuple[str, str | None, bytes]]:
    parser = MultipartParser(b"b")
    found: list[tuple[str, str | None, bytes]] = []
    name, filename, content, ends = "", None, b"", 0
    for piece in pieces:
        for event in parser.feed(piece):
            if isinstance(event, PartBegins):
                name, filename, content = event.name, event.filename, b""
            elif isinstance(event, PartBytes):
                content += event.content
            else:
                assert isinstance(event, PartEnds)
                found.append((name, filename, content))
                ends += 1
    parser.finish()
    assert ends == len(found)
    return found


@pytest.mark.parametrize("size", [1, 2, 3, 7, 50, 1000])
def test_the_pieces_in_which_a_form_comes_make_no_difference(size: int) -> None:
    pieces = [FORM[start : start + size] for start in range(0, len(FORM), size)]
    assert parts_of(pieces) == PARTS


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "ends before"),
        (FORM[:-20], "ends before"),
        (b"--b\r\nX: y\r\n\r\nz\r\n--b--", "no Content-Disposition"),
        (b"--b\r\nX: " + b"y" * 20_000, "longer than"),
        (b"--bc\r\n\r\n", "does not end"),
    ],
)
def test_what_is_no_form_is_refused(body: bytes, words: str) -> None:
    with pytest.raises(InvalidRequestError, match=words):
        parts_of([body])


def test_a_form_without_its_boundary_is_refused() -> None:
    assert boundary_of('multipart/form-data; boundary="a b"') == b"a b"
    with pytest.raises(InvalidRequestError, match="boundary"):
        boundary_of("multipart/form-data")
