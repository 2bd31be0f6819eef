"""Settings to a running house: the one place where the parts meet."""

from embedserve.bootstrap.address import listen, url_of
from embedserve.bootstrap.engine import Engine, open_engine
from embedserve.bootstrap.house import House, open_house

__all__ = ["Engine", "House", "listen", "open_engine", "open_house", "url_of"]
