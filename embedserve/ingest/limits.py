"""What one file may cost; shared by the parent, which sets it, and the worker, which keeps it."""

from dataclasses import dataclass

MIB = 1024 * 1024


@dataclass(frozen=True)
class ReadLimits:
    """What the worker watches itself while it reads one file."""

    max_file_bytes: int = 100 * MIB
    """Of the file, and of each member of an archive."""
    max_text_chars: int = 50_000_000
    """Of a document that is read whole."""
    stream_above_bytes: int = 8 * MIB
    """Files over this are read piece by piece where their form allows; see `long_text`."""
    max_stream_bytes: int = 2048 * MIB
    """Of a file that is read so."""
    max_nesting: int = 200
    """Elements inside of each other in HTML and XML."""
    archive_members: int = 10_000
    """Members of one archive, those of archives inside it included."""
    archive_bytes: int = 512 * MIB
    """What all of them may unpack to."""
    archive_ratio: int = 200
    """Unpacked bytes for each byte of the file."""
    archive_depth: int = 3
    """Archives inside of each other; 1 opens no archive in an archive."""
    ocr_languages: str = ""
    """Tesseract's names joined by `+`; empty: no OCR."""


@dataclass(frozen=True)
class ExtractLimits(ReadLimits):
    """What one file may cost, with what the parent and the kernel enforce."""

    timeout_s: float = 60.0
    memory_bytes: int = 2048 * MIB
    tessdata: str = ""
    """Folder of Tesseract's language files; the only one that a worker may read."""
