"""The ASGI application: routers of every dialect over one set of services."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from fastapi import FastAPI
from starlette.types import ASGIApp

from embedserve import __version__
from embedserve.api import (
    archives,
    chat_openai,
    dify,
    document_pages,
    documents,
    errors,
    health,
    index_care,
    indexes,
    jobs,
    librechat,
    loader,
    mcp,
    metrics,
    ollama,
    ollama_load,
    ollama_models,
    openai,
    openai_files,
    openapi,
    rerank,
    search,
    tei,
    tokens,
    tool_server,
    vector_store_files,
)
from embedserve.api.guard import BrowserGuard
from embedserve.api.hot import HotPath, HotRoute, NamedRoute
from embedserve.api.keys import ApiKey, KeyGuard
from embedserve.api.replies import Services
from embedserve.api.request_limit import RequestLimit
from embedserve.api.upstream import UpstreamProxy
from embedserve.api.viewers import ViewerGuard, ViewerSources
from embedserve.services.ownership import Ownership

App = ASGIApp
"""What `create_app` returns, for those who may not import the framework."""


@dataclass(frozen=True)
class AppLimits:
    """What the application accepts."""

    max_request_bytes: int
    allowed_origins: Sequence[str]
    """Origins of web pages that may call, besides those of this machine; `*` is any."""
    is_loopback: bool
    """Whether only this machine can connect, so that no other host name is meant."""
    max_requests: int = 0
    """Requests at once; 0: any number."""
    keys: Sequence[ApiKey] = ()
    """Of which callers must send one; without any everybody may do everything."""
    ownership: Ownership | None = None
    """Which models are served here; needed with an upstream that gets the others."""
    viewers: ViewerSources = field(default_factory=ViewerSources)
    """By what callers show who asks, of whom access rules tell what they may see."""
    public_url: str = ""
    """Where links to this server lead; empty: where the caller found it."""


HOT_ROUTES: Mapping[str, HotRoute] = {
    "/api/embed": ollama.embed,
    "/api/embeddings": ollama.embeddings,
    "/v1/embeddings": openai.embeddings,
    "/embed": tei.embed,
    **rerank.ROUTES,
    **tokens.ROUTES,
}

NAMED_ROUTES: Mapping[str, NamedRoute] = {"/indexes/{name}/query": search.query}

MODULES = (
    ollama,
    ollama_models,
    ollama_load,
    openai,
    chat_openai,
    tei,
    indexes,
    search,
    jobs,
    index_care,
    archives,
    documents,
    document_pages,
    openai_files,
    vector_store_files,
    mcp,
    tool_server,
    dify,
    librechat,
    loader,
    health,
    metrics,
)
"""Whose routes the framework answers, in this order."""


def create_app(services: Services, limits: AppLimits) -> App:
    """Return the application; starting and stopping the services is the caller's part."""
    app: App = HotPath(
        create_framework_app(services, limits),
        routes=HOT_ROUTES,
        named=NAMED_ROUTES,
        services=services,
        max_request_bytes=limits.max_request_bytes,
    )
    upstream = services.chat.upstreams.passthrough
    if upstream and limits.ownership:
        app = UpstreamProxy(app, upstream, limits.ownership)
    if limits.max_requests:
        app = RequestLimit(app, limits.max_requests, services.metrics)
    app = ViewerGuard(app, limits.viewers)
    if limits.keys:
        app = KeyGuard(app, limits.keys)
    return BrowserGuard(app, origins=limits.allowed_origins, is_loopback=limits.is_loopback)


def create_framework_app(services: Services, limits: AppLimits) -> FastAPI:
    """Return the part that answers everything but the hot routes, and describes those too."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await services.chat.close()

    app = FastAPI(
        title="embedserve",
        lifespan=lifespan,
        version=__version__,
        description="Embeddings and retrieval: Ollama's and OpenAI's embeddings APIs, indexes "
        "of document folders, and queries that cite their sources.",
    )
    app.state.services = services
    app.state.max_request_bytes = limits.max_request_bytes
    app.state.librechat = limits.viewers.librechat
    app.state.public_url = limits.public_url
    errors.install(app)
    for module in MODULES:
        app.include_router(module.router)
    describe_framework = app.openapi

    def describe_all() -> dict[str, Any]:
        return openapi.complete(describe_framework())

    app.openapi = describe_all  # type: ignore[method-assign]  # the framework's documented way
    return app
