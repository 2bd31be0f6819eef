"""Open WebUI, installed in an environment of its own and started with the settings of the docs."""

import os
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx

from embedserve.store.loopback import free_port
from scripts.serving import end

START_S = 600
"""The first start makes a database; on two slow cores it takes minutes."""


@dataclass(frozen=True)
class Addresses:
    """Where Open WebUI finds what it needs."""

    embedserve: str
    key: str
    """Of embedserve, scope `read`."""
    upstream: str
    """A server with language models, base of OpenAI's API."""
    user_token_secret: str
    """What it signs with who its users are."""
    reranker: str = ""
    """Name of a reranker that embedserve has; empty: none is used."""


def settings(where: Addresses) -> dict[str, str]:
    """Return what docs/front-ends.md and docs/clients.md have a user set."""
    connections = {
        "OPENAI_API_BASE_URLS": f"{where.embedserve}/openwebui/v1;{where.upstream}",
        "OPENAI_API_KEYS": f"{where.key};none",
        "ENABLE_OLLAMA_API": "false",
    }
    documents = {
        "RAG_EMBEDDING_ENGINE": "ollama",
        "RAG_EMBEDDING_MODEL": "all-minilm",
        "RAG_EMBEDDING_BATCH_SIZE": "32",
        "RAG_OLLAMA_BASE_URL": where.embedserve,
        "RAG_OLLAMA_API_KEY": where.key,
        "CONTENT_EXTRACTION_ENGINE": "external",
        "EXTERNAL_DOCUMENT_LOADER_URL": where.embedserve,
        "EXTERNAL_DOCUMENT_LOADER_API_KEY": where.key,
    }
    users = {
        "ENABLE_FORWARD_USER_INFO_HEADERS": "true",
        "FORWARD_USER_INFO_HEADER_JWT_SECRET": where.user_token_secret,
    }
    reranking = {
        "ENABLE_RAG_HYBRID_SEARCH": "true",
        "RAG_RERANKING_ENGINE": "external",
        "RAG_EXTERNAL_RERANKER_URL": f"{where.embedserve}/v1/rerank",
        "RAG_EXTERNAL_RERANKER_API_KEY": where.key,
        "RAG_RERANKING_MODEL": where.reranker,
    }
    return {**connections, **documents, **users, **(reranking if where.reranker else {})}


def offline(folder: Path) -> dict[str, str]:
    """Return settings of an installation that asks nobody but us."""
    return {
        "DATA_DIR": str(folder),
        "WEBUI_SECRET_KEY": "for a test of one page",
        "OFFLINE_MODE": "true",
        "HF_HUB_OFFLINE": "1",
        "ENABLE_VERSION_UPDATE_CHECK": "false",
        "ANONYMIZED_TELEMETRY": "False",
        "DO_NOT_TRACK": "true",
        "SCARF_NO_ANALYTICS": "true",
    }


@contextmanager
def open_webui(program: Path, told: Mapping[str, str]) -> Iterator[str]:
    """Run it with fresh data until the block ends; give its address."""
    # It takes no port 0. Another program may take this one meanwhile; it then ends with an error.
    port = free_port(0)
    command = [str(program), "serve", "--host", "127.0.0.1", "--port", str(port)]
    with tempfile.TemporaryDirectory() as folder:
        log_path = Path(folder) / "log"
        data = Path(folder) / "data"
        data.mkdir()
        with log_path.open("wb") as log:
            process = subprocess.Popen(
                command,
                cwd=folder,
                env={**_environment(), **offline(data), **told},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        try:
            url = f"http://127.0.0.1:{port}"
            _wait(url, process, log_path)
            yield url
        except BaseException:
            print(log_path.read_text(errors="replace")[-20_000:])
            raise
        finally:
            with suppress(subprocess.TimeoutExpired):  # it was killed
                end(process)


def _environment() -> dict[str, str]:
    """Return this process's environment without proxies and keys of the one who runs it."""
    return {
        name: value
        for name, value in os.environ.items()
        if not name.lower().endswith(("_proxy", "_api_key"))
    }


def _wait(url: str, process: "subprocess.Popen[bytes]", log_path: Path) -> None:
    deadline = time.monotonic() + START_S
    with httpx.Client(trust_env=False, timeout=5) as http:
        while time.monotonic() < deadline and process.poll() is None:
            try:
                if http.get(f"{url}/health").json() == {"status": True}:
                    return
            except (httpx.HTTPError, ValueError):
                time.sleep(0.5)
    raise SystemExit(f"Open WebUI did not start:\n{log_path.read_text(errors='replace')[-5000:]}")
