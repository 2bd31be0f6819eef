"""Models for requests: loaded beside the event loop, once for all who wait for the same one."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from embedserve.engine.encoder import Encoder
from embedserve.services.encoders import Encoders
from embedserve.types import ModelKind

# Models that may be loading at once; more wait for their turn.
_LOADERS = 4


class ModelLoader:
    """Hand out models of one kind; for one event loop."""

    def __init__(self, encoders: Encoders, kind: ModelKind) -> None:
        self._encoders = encoders
        self._kind = kind
        self._threads = ThreadPoolExecutor(_LOADERS, thread_name_prefix="load")
        self._loading: dict[str, asyncio.Future[Encoder]] = {}

    async def encoder(self, name: str) -> Encoder:
        """Return a model, at once where it is loaded; raises what `Encoders.get` does."""
        if encoder := self._encoders.find(name, self._kind):
            return encoder
        # One thread for each model that is loading, however many wait for it, and none of those
        # that tokenize: the other models go on.
        if name not in self._loading:
            load = partial(self._encoders.get, name, self._kind)
            self._loading[name] = asyncio.get_running_loop().run_in_executor(self._threads, load)
            self._loading[name].add_done_callback(partial(self._end_loading, name))
        return await asyncio.shield(self._loading[name])

    def _end_loading(self, name: str, loading: "asyncio.Future[Encoder]") -> None:
        del self._loading[name]
        if not loading.cancelled():
            # All who waited may have left; an error that nobody asks for would be logged.
            loading.exception()

    async def only_name(self) -> str:
        """Return the name of the only installed model of the kind; see `Encoders.only_name`."""
        # Not by the threads that load, which may all be busy for long.
        return await asyncio.to_thread(self._encoders.only_name, self._kind)

    def close(self) -> None:
        """Load nothing more."""
        self._threads.shutdown(wait=False, cancel_futures=True)
