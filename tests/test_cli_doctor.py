"""`embedserve doctor` on a server that lives and on none."""

import json
from pathlib import Path

from typer.testing import CliRunner, Result

from embedserve.cli.app import app
from embedserve.errors import NotFoundError
from tests.live import LiveServer


def run(*arguments: str, home: Path) -> Result:
    return CliRunner().invoke(app, ["doctor", *arguments, "--home", str(home)])


def test_it_finds_the_server_of_the_home_and_lists_the_clients(server: LiveServer) -> None:
    done = run(home=server.home)
    assert done.exit_code == 0, done.output
    assert f"Server at {str(server.http.base_url).rstrip('/')}, model all-minilm" in done.stdout
    assert "2 vectors of 384 numbers and length 1" in done.stdout
    assert "host.docker.internal" in done.stdout
    assert "openwebui" in done.stdout


def test_a_client_that_is_served_gets_its_settings(server: LiveServer) -> None:
    url = str(server.http.base_url).rstrip("/")
    # The address of the OpenAI dialect is one that people have at hand.
    done = run("--client", "dify", "--url", f"{url}/v1", home=server.home)
    assert done.exit_code == 0, done.output
    assert f"Base URL: {url}\n" in done.stdout
    assert "ok  POST /api/embed" in done.stdout


def test_a_client_that_is_not_served_is_status_1_and_has_a_remedy(server: LiveServer) -> None:
    done = run("--client", "smart-connections", "--json", home=server.home)
    assert done.exit_code == 1
    found = json.loads(done.stdout)
    assert found["is_served"] is False
    [failed] = [call for call in found["calls"] if call["problems"]]
    assert "embedserve copy all-minilm all-minilm-embed" in failed["remedy"]
    spoken = run("--client", "smart-connections", home=server.home)
    assert "To do: Give the model a name that it shows" in spoken.stdout


def test_no_server_an_unknown_model_and_an_unknown_client(
    server: LiveServer, tmp_path: Path
) -> None:
    for wrong in (("--url", "http://a:b"), ("--key", "schlüssel")):
        refused = run(*wrong, "--json", home=tmp_path)
        assert refused.exit_code == 1
        assert "cannot be sent" in json.loads(refused.stdout)["checks"][0]["words"]
    gone = run("--url", "127.0.0.1:9", "--json", home=tmp_path)
    assert gone.exit_code == 1
    assert "embedserve serve" in json.loads(gone.stdout)["checks"][0]["words"]
    quoted = run("--model", 'a"b', "--client", "dify", "--json", home=server.home)
    assert "is not valid JSON" not in quoted.stdout
    missing = run("--model", "nope", home=server.home)
    assert missing.exit_code == 1
    assert "nope is not installed (installed: all-minilm:latest" in missing.stdout
    unknown = run("--client", "nobody", home=tmp_path)
    assert isinstance(unknown.exception, NotFoundError)
    assert "Known are: anythingllm" in unknown.exception.message
