"""Sitemaps (sitemaps.org) as lists of addresses. Reads bytes that came from elsewhere."""

import re
import zlib
from collections.abc import Iterator
from html import unescape

MAX_BYTES = 50 * 1024 * 1024
"""What the protocol allows one file, unpacked."""
# An XML parser would follow the entities and the nesting of a hostile file; these two suffice.
_LOCATION = re.compile(rb"<(?:\w+:)?loc\s*>\s*(?:<!\[CDATA\[)?\s*([^<>\s\]]{1,2048})\s*")
_IS_INDEX = re.compile(rb"<(?:\w+:)?sitemapindex[\s>]")


def unpacked(content: bytes) -> bytes:
    """Return a sitemap that may come as gzip, at most MAX_BYTES of it; raise ValueError."""
    if not content.startswith(b"\x1f\x8b"):
        return content[:MAX_BYTES]
    try:
        return zlib.decompressobj(wbits=31).decompress(content, MAX_BYTES)
    except zlib.error as error:
        raise ValueError(f"it is damaged ({error})") from error


def is_sitemap_index(content: bytes) -> bool:
    """Tell whether its addresses are those of other sitemaps."""
    return _IS_INDEX.search(content[:4096]) is not None


def locations(content: bytes) -> Iterator[str]:
    """Give the addresses in a sitemap, in its order."""
    for match in _LOCATION.finditer(content):
        yield unescape(match[1].decode("utf-8", "replace"))
