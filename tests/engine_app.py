"""The application without a port, over an engine of its own and a home that may be written to."""

import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from starlette.testclient import TestClient

from embedserve.api.app import AppLimits, create_app
from embedserve.api.replies import Services
from embedserve.bootstrap.engine import Inference, open_engine, open_inference
from embedserve.services.memory import FreedMemory
from embedserve.services.metrics import Metrics
from embedserve.services.model_library import ModelLibrary
from embedserve.settings import Settings
from scripts.bench_report.hot import services_with


def writable_home(model_home: Path, folder: Path) -> Path:
    """Return a home whose models share their files with `model_home`."""
    shutil.copytree(model_home / "models", folder / "models", copy_function=os.link)
    return folder


def engine_services(inference: Inference, models: ModelLibrary, metrics: Metrics) -> Services:
    """Return services with nothing behind the routes about indexes."""
    return services_with(
        embedding=inference.embedding,
        reranking=inference.reranking,
        models=models,
        metrics=metrics,
        freed=FreedMemory(),
    )


@contextmanager
def engine_app(home: Path, **settings: object) -> Iterator[TestClient]:
    """Start the part of the house that embeds; routes about indexes have nothing behind them."""
    chosen = Settings(home=home, **settings)  # type: ignore[arg-type]
    with ExitStack() as stack:
        engine = stack.enter_context(open_engine(chosen))
        inference = open_inference(chosen, engine, stack)
        services = engine_services(inference, engine.models, engine.metrics)
        app = create_app(services, AppLimits(chosen.max_request_bytes, (), is_loopback=True))
        yield stack.enter_context(TestClient(app, base_url="http://localhost"))
