"""Texts too long for memory, read in order and piece by piece. Runs in the worker only.

Plain text, logs, Markdown, reStructuredText, source code, JSON Lines, CSV and TSV can be: what
their beginning says holds for the rest. Every other format has to be read whole.
"""

import codecs
import hashlib
import os
import unicodedata
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass
from typing import BinaryIO

from embedserve.ingest import assemble, decode
from embedserve.ingest.kinds import FileKind
from embedserve.ingest.readers import Page, Read, is_binary, own_title, refusal
from embedserve.ingest.tables import table

READ_BYTES = 1024 * 1024
HEAD_BYTES = 65_536
"""From which kind and encoding are told."""
MAX_KEPT_CHARS = 1_000_000
"""A run of marks that may all belong to one character is cut there."""
_LETTERS_NUMBERS_SIGNS_SPACES = "LNPSZ"


@dataclass
class LongText:
    """One file under way; the facts about it are true once its pieces were taken."""

    file: BinaryIO
    name: str
    kind: FileKind
    sha256: str = ""
    size_bytes: int = 0
    title: str = ""
    warnings: tuple[str, ...] = ()

    def pieces(self) -> Iterator[str]:
        """Yield the clean text, in pieces some of which are empty, each in a moment.

        Together they are what is read of the file whole. Raises ExtractionError.
        """
        size = os.fstat(self.file.fileno()).st_size
        encoding = yield from self._encoding(size)
        self.warnings = encoding.warnings
        pieces = clean_pieces(self._decoded(encoding, size))
        if self.kind.reader != "text":
            pieces = table(pieces, self.kind)
        head, has_words = "", False
        for piece in pieces:
            if len(head) < assemble.TITLE_SEARCH_CHARS:
                head += piece
            has_words = has_words or any(map(str.isalnum, piece))
            yield piece
        if not has_words:
            raise refusal(
                "no_text", "There is no text in it.", "It may hold pictures or drawings only."
            )
        self.title = self._title(head[: assemble.TITLE_SEARCH_CHARS])

    def _encoding(self, size: int) -> Generator[str, None, decode.Encoding]:
        self.file.seek(0)
        head = self.file.read(HEAD_BYTES)
        # What the head alone tells spares reading the rest.
        if any(decode.encoding_of(head, is_utf8=either) for either in (True, False)):
            is_utf8 = yield from _is_utf8(_blocks(self.file, size))
            if encoding := decode.encoding_of(head, is_utf8=is_utf8):
                return encoding
        raise is_binary()

    def _decoded(self, encoding: decode.Encoding, size: int) -> Iterator[str]:
        digest, decoder = hashlib.sha256(), encoding.decoder()
        mark = encoding.mark_bytes
        for block in _blocks(self.file, size):
            digest.update(block)
            self.size_bytes += len(block)
            yield decoder(block[mark:], False)
            mark = 0
        yield decoder(b"", True)
        self.sha256 = digest.hexdigest()

    def _title(self, head: str) -> str:
        read = Read([Page(None, head)], self.kind.kind, own_title(head, self.kind))
        return assemble.title(read, assemble.document(read, len(head)), self.name)


def _blocks(file: BinaryIO, size: int) -> Iterator[bytes]:
    """Yield the first `size` bytes; what is written behind them meanwhile is left out."""
    file.seek(0)
    while size > 0 and (block := file.read(min(READ_BYTES, size))):
        size -= len(block)
        yield block


def _is_utf8(blocks: Iterable[bytes]) -> Generator[str, None, bool]:
    """Tell whether it is UTF-8 up to a last character that may be cut off; yield nothing often."""
    decoder = codecs.getincrementaldecoder("utf-8")("strict")
    try:
        for block in blocks:
            decoder.decode(block)
            yield ""
    except UnicodeDecodeError:
        return False
    return True


def clean_pieces(pieces: Iterable[str]) -> Iterator[str]:
    """Yield what `decode.clean` makes of all pieces together."""
    kept = ""
    for piece in pieces:
        kept += piece
        border = _border(kept)
        if not border and len(kept) > MAX_KEPT_CHARS:
            border = len(kept)
        yield decode.clean(kept[:border])
        kept = kept[border:]
    yield decode.clean(kept)


def _border(text: str) -> int:
    """Return the last place before which all can be cleaned without what follows it; 0: none.

    No line end is there, and the character behind it joins none before it.
    """
    for place in range(len(text) - 1, 0, -1):
        char = text[place]
        if (char in "\n\t" or not joins_former(char)) and text[place - 1] != "\r":
            return place
    return 0


def joins_former(char: str) -> bool:
    """Tell whether a character may become one with what stands before it, or be dropped."""
    if unicodedata.category(char)[0] not in _LETTERS_NUMBERS_SIGNS_SPACES:
        return True  # marks above all; controls, which are dropped
    # The letters that are composed into syllables: Hangul's, and Kirat Rai's since Unicode 16.
    return "\u1160" <= char <= "\u11ff" or "\U00016d63" <= char <= "\U00016d6a"
