"""What is used of the package `chromadb`, imported without its reporting by gRPC.

The client imports an exporter of traces, which sends nothing unless it is told where to: 9 MiB of
libraries for nothing.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

_EXPORTER = "opentelemetry.exporter.otlp.proto.grpc.trace_exporter"


@contextmanager
def _without_exporter() -> Iterator[None]:
    """Let a class that cannot be made stand for the exporter, unless that is imported already."""
    is_ours = _EXPORTER not in sys.modules
    if is_ours:
        stand_in = ModuleType(_EXPORTER)
        stand_in.OTLPSpanExporter = None  # type: ignore[attr-defined]
        sys.modules[_EXPORTER] = stand_in
    try:
        yield
    finally:
        if is_ours:
            del sys.modules[_EXPORTER]


with _without_exporter():
    from chromadb.api.collection_configuration import CreateCollectionConfiguration
    from chromadb.api.fastapi import FastAPI
    from chromadb.api.models.Collection import Collection
    from chromadb.config import Settings, System
    from chromadb.errors import ChromaError, NotFoundError

__all__ = [
    "ChromaError",
    "Collection",
    "CreateCollectionConfiguration",
    "FastAPI",
    "NotFoundError",
    "Settings",
    "System",
]
