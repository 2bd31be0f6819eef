"""The house that a command opens in its own process, where no server has it."""

import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn
from pydantic import SecretStr

from embedserve.bootstrap.address import listen, url_of
from embedserve.bootstrap.house import open_house
from embedserve.cli.client import COMMAND_HEADER, TIMEOUT_S
from embedserve.settings import Settings


@contextmanager
def own_house(settings: Settings, *, runs_jobs: bool) -> Iterator[str]:
    """Open the house in this process and give its address."""
    with (
        open_house(settings, runs_jobs=runs_jobs) as house,
        listen("127.0.0.1", 0) as listener,
    ):
        config = uvicorn.Config(
            house.app, log_config=None, access_log=False, headers=[(COMMAND_HEADER, "1")]
        )
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
        thread.start()
        house.lock.announce(url_of(listener))
        try:
            yield url_of(listener)
        finally:
            house.lock.see_off(TIMEOUT_S)
            server.should_exit = True
            thread.join(timeout=10)


def with_own_key(settings: Settings) -> Settings:
    """Let this command use the house that it opens, whose keys it may not have.

    Others that share that house need one of theirs. Models of an upstream are no business of it.
    """
    changes: dict[str, Any] = {"upstream": None}
    if settings.api_keys is not None or settings.api_keys_file:
        own = secrets.token_urlsafe(32)
        others = f"{settings.api_keys.get_secret_value()}," if settings.api_keys else ""
        changes |= {"api_key": SecretStr(own), "api_keys": SecretStr(f"{others}admin:{own}")}
    return settings.model_copy(update=changes)
