"""Which reader a file name asks for. One table; a new format is one row.

Names only: what the bytes turn out to be is for `extract_worker` to judge.
"""

from dataclasses import dataclass
from pathlib import PurePath
from typing import Literal

Reader = Literal[
    "text",
    "html",
    "xml",
    "library",
    "ooxml",
    "odt",
    "odp",
    "mail",
    "mbox",
    "rtf",
    "archive",
    "picture",
]
"""`text`: decoded and kept as it is; the others give Markdown or plain text of their own."""

TextKind = Literal["markdown", "rst", "code", "text", "rows"]


@dataclass(frozen=True)
class FileKind:
    """How to read a file and how its text is to be cut afterwards."""

    reader: Reader
    kind: TextKind
    mime: str = "text/plain"


def _words(text: str) -> list[str]:
    return text.split()


_PLAIN = FileKind("text", "text")
_MARKDOWN = FileKind("text", "markdown")
_CODE = FileKind("text", "code")
_ARCHIVE = FileKind("archive", "markdown")
_OOXML = "application/vnd.openxmlformats-officedocument"
_ODF = "application/vnd.oasis.opendocument"

_KINDS: dict[str, FileKind] = {
    **dict.fromkeys((".md", ".markdown", ".mdx", ".mdown", ".qmd", ".rmd"), _MARKDOWN),
    **dict.fromkeys((".rst", ".rest"), FileKind("text", "rst")),
    **dict.fromkeys((".jsonl", ".ndjson"), FileKind("text", "rows")),
    **dict.fromkeys((".txt", ".text", ".log", ".adoc", ".asciidoc", ".org", ".tex"), _PLAIN),
    **dict.fromkeys((".srt", ".vtt", ".diff", ".patch"), _PLAIN),
    **dict.fromkeys(
        _words(
            ".py .pyi .js .mjs .cjs .jsx .ts .tsx .java .kt .kts .scala .go .rs .c .h .cc .cpp .cxx"
            " .hpp .hh .cs .fs .vb .swift .m .mm .rb .php .pl .pm .lua .r .jl .hs .ml .mli .ex .exs"
            " .erl .clj .cljs .lisp .el .scm .sh .bash .zsh .fish .ps1 .psm1 .psd1 .bat .cmd .sql"
            " .graphql .proto .thrift .tf .hcl .nix .cmake .mk .gradle .groovy .dart .zig .nim .v"
            " .sv .vhd .asm .s .f90 .f .pas .d .vue .svelte .css .scss .sass .less .yaml .yml .toml"
            " .ini .cfg .conf .properties .json .json5 .jsonc"
        ),
        _CODE,
    ),
    **dict.fromkeys((".html", ".htm", ".xhtml"), FileKind("html", "markdown", "text/html")),
    **dict.fromkeys((".xml", ".rss", ".atom"), FileKind("xml", "text")),
    ".pdf": FileKind("library", "text", "application/pdf"),
    ".docx": FileKind("ooxml", "markdown", f"{_OOXML}.wordprocessingml.document"),
    ".pptx": FileKind("ooxml", "markdown", f"{_OOXML}.presentationml.presentation"),
    ".xlsx": FileKind("ooxml", "markdown", f"{_OOXML}.spreadsheetml.sheet"),
    ".doc": FileKind("library", "markdown", "application/msword"),
    ".ppt": FileKind("library", "markdown", "application/vnd.ms-powerpoint"),
    ".xls": FileKind("library", "markdown", "application/vnd.ms-excel"),
    ".odt": FileKind("odt", "markdown"),
    ".ods": FileKind("library", "markdown", f"{_ODF}.spreadsheet"),
    ".odp": FileKind("odp", "markdown"),
    ".rtf": FileKind("rtf", "markdown"),
    ".epub": FileKind("library", "markdown", "application/epub+zip"),
    ".eml": FileKind("mail", "markdown", "message/rfc822"),
    ".msg": FileKind("library", "markdown", "application/vnd.ms-outlook"),
    ".mbox": FileKind("mbox", "markdown", "message/rfc822"),
    ".csv": FileKind("library", "markdown", "text/csv"),
    ".tsv": FileKind("library", "markdown", "text/tab-separated-values"),
    ".ipynb": FileKind("library", "markdown", "application/x-ipynb+json"),
    **dict.fromkeys(_words(".zip .tar .gz .tgz .bz2 .tbz2 .xz .txz"), _ARCHIVE),
    **dict.fromkeys((".jpg", ".jpeg"), FileKind("picture", "text", "image/jpeg")),
    **dict.fromkeys((".tif", ".tiff"), FileKind("picture", "text", "image/tiff")),
    ".png": FileKind("picture", "text", "image/png"),
    ".webp": FileKind("picture", "text", "image/webp"),
    ".bmp": FileKind("picture", "text", "image/bmp"),
}

_TABLES = frozenset({"text/csv", "text/tab-separated-values"})

_HINTS: dict[str, str] = {
    **dict.fromkeys(
        _words(".7z .rar .zst .lz4 .cab .iso .jar"),
        "Unpack it beside it, or pack it as ZIP or TAR; this kind of archive is not opened.",
    ),
    **dict.fromkeys(
        _words(".gif .heic .ico .svg .psd"),
        "This kind of picture is not read; add a text version of it.",
    ),
    **dict.fromkeys(
        _words(".mp3 .wav .m4a .flac .ogg .mp4 .mov .avi .mkv .webm"),
        "Add a transcript as text; sound and film are not transcribed.",
    ),
}


def kind_of(name: str) -> FileKind | None:
    """Look up the reader for a file name; None for a name that says nothing.

    Such a file (`LICENSE`, `Makefile`, `notes.2024`) is text when its bytes are.
    """
    return _KINDS.get(PurePath(name).suffix.lower())


def is_stream(kind: FileKind) -> bool:
    """Tell whether a file of this kind can be read in order, piece by piece."""
    return kind.reader == "text" or kind.mime in _TABLES


def may_stream(name: str) -> bool:
    """Tell whether a file of this name may turn out to be of such a kind."""
    kind = kind_of(name)
    return is_stream(kind) if kind else unsupported_hint(name) is None


def needs_parsers(kind: FileKind) -> bool:
    """Tell whether a file of this kind takes more than what Python brings."""
    return kind.reader not in ("text", "xml")


def must_need_parsers(name: str) -> bool:
    """Tell that of a name alone; whatever it says, the bytes may need them."""
    kind = kind_of(name)
    return kind is not None and needs_parsers(kind)


def unsupported_hint(name: str) -> str | None:
    """Say what to do about a format that is known and not read, None for any other."""
    return _HINTS.get(PurePath(name).suffix.lower())
