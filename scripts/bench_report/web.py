"""How applications are served here: as `embedserve serve` does it."""

import uvicorn
from starlette.types import ASGIApp


def config(app: ASGIApp) -> uvicorn.Config:
    """Return the web server's settings; see `embedserve.cli.serve`."""
    return uvicorn.Config(
        app, log_config=None, access_log=False, timeout_graceful_shutdown=2, server_header=False
    )
