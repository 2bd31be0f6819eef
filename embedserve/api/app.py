"""The ASGI application: routers of every dialect over one set of services."""

from fastapi import FastAPI

from embedserve import __version__
from embedserve.api import errors, health, indexes, ollama, openai
from embedserve.api.replies import Services

App = FastAPI
"""What `create_app` returns, for those who may not import the framework."""


def create_app(services: Services, *, max_request_bytes: int) -> App:
    """Return the application; starting and stopping the services is the caller's part."""
    app = FastAPI(
        title="embedserve",
        version=__version__,
        description="Embeddings and retrieval: Ollama's and OpenAI's embeddings APIs, indexes "
        "of document folders, and queries that cite their sources.",
    )
    app.state.services = services
    app.state.max_request_bytes = max_request_bytes
    errors.install(app)
    for module in (ollama, openai, indexes, health):
        app.include_router(module.router)
    return app
