"""Settings to a running house: the one place where the parts meet."""

from embedserve.bootstrap.address import is_loopback, listen, url_at, url_of
from embedserve.bootstrap.engine import Engine, open_engine
from embedserve.bootstrap.house import House, open_house
from embedserve.bootstrap.sources import Reading, read_all, shown

__all__ = [
    "Engine",
    "House",
    "Reading",
    "is_loopback",
    "listen",
    "open_engine",
    "open_house",
    "read_all",
    "shown",
    "url_at",
    "url_of",
]
