"""The ASGI application: routers of every dialect over one set of services."""

from collections.abc import Sequence
from dataclasses import dataclass

from fastapi import FastAPI

from embedserve import __version__
from embedserve.api import errors, health, indexes, ollama, ollama_models, openai
from embedserve.api.guard import BrowserGuard
from embedserve.api.replies import Services

App = FastAPI
"""What `create_app` returns, for those who may not import the framework."""


@dataclass(frozen=True)
class AppLimits:
    """What the application accepts."""

    max_request_bytes: int
    allowed_origins: Sequence[str]
    """Origins of web pages that may call, besides those of this machine; `*` is any."""
    is_loopback: bool
    """Whether only this machine can connect, so that no other host name is meant."""


def create_app(services: Services, limits: AppLimits) -> App:
    """Return the application; starting and stopping the services is the caller's part."""
    app = FastAPI(
        title="embedserve",
        version=__version__,
        description="Embeddings and retrieval: Ollama's and OpenAI's embeddings APIs, indexes "
        "of document folders, and queries that cite their sources.",
    )
    app.state.services = services
    app.state.max_request_bytes = limits.max_request_bytes
    app.add_middleware(BrowserGuard, origins=limits.allowed_origins, is_loopback=limits.is_loopback)
    errors.install(app)
    for module in (ollama, ollama_models, openai, indexes, health):
        app.include_router(module.router)
    return app
