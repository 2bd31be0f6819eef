"""What a file is, by its first bytes and its name, and the reading of text and XML.

All that a worker needs which has loaded no parsers. Runs in the worker only.
"""

from embedserve.errors import ExtractionError
from embedserve.ingest import archives, formats
from embedserve.ingest.kinds import FileKind, kind_of, unsupported_hint
from embedserve.ingest.limits import ReadLimits
from embedserve.ingest.members import has_text
from embedserve.ingest.readers import Read, read_text, read_xml, refusal


def kind_by(head: bytes, name: str) -> FileKind:
    """Say how to read a file by its first bytes and its name; raise ExtractionError for no way."""
    kind = _sniffed(head) or kind_of(name)
    if kind is None:
        if (hint := unsupported_hint(name)) is not None:
            raise refusal("unsupported", "Its format is not read.", hint)
        kind = _kind_of_nameless(head)
    return kind


def read_plain(content: bytes, kind: FileKind, limits: ReadLimits) -> Read:
    """Read a file of text or XML; raise ExtractionError when there is no text in it."""
    is_xml = kind.reader == "xml"
    read = read_xml(content, kind, limits.max_nesting) if is_xml else read_text(content, kind)
    if not has_text(read):
        raise silence(content)
    return read


def silence(content: bytes) -> ExtractionError:
    """Make the error for a file that was read and gave no word."""
    if formats.is_encrypted(content):
        return refusal("encrypted", "It is encrypted.", formats.ENCRYPTED_HINT)
    return refusal("no_text", "There is no text in it.", "It may hold pictures or drawings only.")


def _sniffed(content: bytes) -> FileKind | None:
    """Trust the bytes over the name for formats that often carry a wrong one."""
    if content.startswith(b"%PDF-"):
        return kind_of("x.pdf")
    if content.startswith(b"<?xml") and b"<w:wordDocument" in content[:4096]:
        return kind_of("x.xml")  # Word 2003 wrote such files as `.doc`
    return kind_of("x.rtf") if content.startswith(b"{\\rtf") else None


def _kind_of_nameless(content: bytes) -> FileKind:
    if archives.is_archive(content):
        return FileKind("archive", "markdown")
    if content.startswith(b"<?xml"):
        return FileKind("xml", "text")
    return FileKind("text", "text")
