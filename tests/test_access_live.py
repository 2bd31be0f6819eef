"""A real server with keys and an upstream: over HTTP, and with the commands that talk to it."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.live import LiveServer, environment
from tests.ollama_double import upstream

READER, OWNER = "reader-0123456789", "owner-0123456789"


def listed(home: Path, key: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "embedserve", "list", "--home", str(home)],
        env=environment(EMBEDSERVE_API_KEY=key),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@contextmanager
def guarded(home: Path, url: str) -> Iterator[LiveServer]:
    keys = home.with_name("keys")
    keys.write_text(f"# mounted\nadmin:{OWNER}\n", encoding="utf-8")
    settings = {
        "EMBEDSERVE_API_KEYS": f"read:{READER}",
        "EMBEDSERVE_API_KEYS_FILE": str(keys),
        "OLLAMA_ORIGINS": "https://chat.example",
        "OLLAMA_MODELS": "/models",
    }
    arguments = ["--upstream", url]
    with LiveServer(home, arguments=arguments, settings=settings) as server:
        yield server
    assert READER not in server.log()
    assert OWNER not in server.log()
    assert "Traceback" not in server.log()
    assert "OLLAMA_MODELS is ignored" in server.log()


def test_keys_and_upstream_on_a_real_server(home: Path) -> None:
    with upstream() as theirs, guarded(home, theirs.url) as server:
        theirs.gate.set()
        http, key = server.http, {"Authorization": f"Bearer {READER}"}
        body = {"model": "all-minilm", "input": "a text"}
        assert http.get("/ready").status_code == 200
        refused = http.post("/api/embed", json=body, headers={"Origin": "https://chat.example"})
        assert refused.status_code == 401
        # A page must be able to read why it was refused.
        assert refused.headers["access-control-allow-origin"] == "https://chat.example"
        assert len(http.post("/api/embed", json=body, headers=key).json()["embeddings"][0]) == 384
        names = [one["name"] for one in http.get("/api/tags", headers=key).json()["models"]]
        assert "all-minilm:latest" in names
        assert names[-1] == "llama3.2:latest"
        chat = http.post("/api/chat", json={"model": "llama3.2"}, headers=key)
        assert chat.text.endswith('{"done": true}\n')
        assert http.post("/api/embed", json={**body, "model": "x"}, headers=key).status_code == 200
        question = {"model": "rag/none", "messages": []}
        for path in ("/v1/chat/completions", "/openwebui/v1/chat/completions", "/api/chat"):
            assert http.post(path, json=question).status_code == 401
            assert http.post(path, json=question, headers=key).status_code == 404
        assert http.get("/openwebui/v1/models").status_code == 401
        denied = http.request("DELETE", "/api/delete", json={"model": "x"}, headers=key)
        assert denied.status_code == 403
        assert not [True for _, headers, _ in theirs.requests if "authorization" in headers]
        assert "EMBEDSERVE_API_KEY" in listed(home, "wrong-0123456789").stderr
        shown = listed(home, OWNER)
        assert shown.returncode == 0, shown.stderr
        assert "llama3.2:latest" in shown.stdout
        assert "upstream" in shown.stdout
