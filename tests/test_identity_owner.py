"""A protected index without API keys, and the commands of whoever owns the home."""

import subprocess
import sys
from pathlib import Path

from tests.identity_vault import MARKS, QUESTION, SECRET, TEXTS, Body, token
from tests.live import LiveServer, environment
from tests.quick_model import install_quick


def test_no_key_is_no_permission_and_the_owner_of_the_home_sees_all(
    model_home: Path, tmp_path: Path
) -> None:
    home, definitions = tmp_path / "home", tmp_path / "definitions"
    install_quick(model_home, home)
    definitions.mkdir()
    rules = '[access]\nrules = [{claim = "email", field = "owner"}]\n'
    (definitions / "vault.toml").write_text(rules)
    settings = {
        "EMBEDSERVE_USER_TOKEN_SECRET": SECRET,
        "EMBEDSERVE_USER_TOKEN_HEADER": "X-Who",
        "EMBEDSERVE_SIGNED_LINK_S": "0",
        "EMBEDSERVE_DEFINITIONS": str(definitions),
    }
    add = ["documents", "add", "--index", "vault", "--name", "ann", "-"]
    metadata = ["--metadata", "owner=ann@x.example"]
    with LiveServer(home, settings=settings) as live:
        shown = command(home, *add, *metadata, stdin=TEXTS["ann"][0])
        assert shown.returncode == 0, shown.stderr
        shown = command(home, "query", "--index", "vault", QUESTION, "--json")
        assert MARKS["ann"] in shown.stdout, shown.stderr
        asked: Body = {"json": {"query": QUESTION}}
        path, ann = "/indexes/vault/query", token("ann@x.example")
        found = live.http.post(path, headers={"X-Who": ann}, **asked)
        assert MARKS["ann"] in found.text
        assert "signed=" not in found.text  # the setting is 0
        assert live.http.post(path, headers={"X-Who": ann[:-3]}, **asked).status_code == 401
        for headers in ({}, {"X-OpenWebUI-User-Jwt": ann}, {"X-Embedserve-Owner": "x" * 43}):
            reply = live.http.post(path, headers=headers, **asked)
            assert (reply.status_code, reply.json()["hits"]) == (200, [])
            assert "no user token" in reply.json()["warnings"][0]
            assert live.http.get("/indexes/vault/export", headers=headers).status_code == 403
            assert live.http.put("/indexes/vault", json={}, headers=headers).status_code == 403
            assert live.http.delete("/indexes/vault", headers=headers).status_code == 403
        assert live.http.get("/jobs").json() == {"jobs": []}
        shown = command(home, "index", "delete", "vault")
        assert shown.returncode == 0, shown.stderr
        jobs = live.http.get("/jobs").text
        assert '"vault"' in jobs
        assert '"upload:ann"' not in jobs
        assert SECRET not in command(home, "env", EMBEDSERVE_USER_TOKEN_SECRET=SECRET).stdout
    assert "Traceback" not in live.log(), live.log()


def command(
    home: Path, *arguments: str, stdin: str = "", **settings: str
) -> subprocess.CompletedProcess[str]:
    """Run a command as the owner of a home."""
    return subprocess.run(
        [sys.executable, "-m", "embedserve", *arguments, "--home", str(home)],
        env=environment(**settings),
        cwd=home,
        input=stdin,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
