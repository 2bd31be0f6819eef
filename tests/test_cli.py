"""The command line as people and scripts use it, with and without a running server."""

import json
import os
import signal
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
from rich.console import Console

from embedserve.cli.app import run as run_command
from embedserve.cli.client import connect
from embedserve.cli.query import emphasized
from embedserve.errors import StartupError
from embedserve.store.catalog import Catalog
from embedserve.store.home_lock import HomeLock
from tests.live import LiveServer, environment
from tests.loopback_server import on_free_port, serving_on

GUIDE = "# Guide\n\n## Port\nChange the port with --port 11435.\n"


def run(
    *arguments: str, home: Path, stdin: str = "", columns: str = "200"
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "embedserve", *arguments, "--home", str(home)],
        cwd=home,
        env=environment(COLUMNS=columns),
        input=stdin,
        capture_output=True,
        text=True,
        timeout=240,  # `verify` and `pull` measure, on whatever cores there are
        check=False,
    )


@pytest.fixture
def home(quick_home: Path) -> Path:
    """Commands are looked at here, not vectors; test_cli_models asks the real model by command."""
    return quick_home


@pytest.fixture
def documents(tmp_path: Path) -> Path:
    folder = tmp_path / "documents"
    folder.mkdir()
    (folder / "guide.md").write_text(GUIDE, encoding="utf-8")
    return folder


def test_words_of_the_question_are_bold_in_a_terminal_alone() -> None:
    text = emphasized("Change the [port].", [[0, 6], [12, 16]])
    terminal = Console(force_terminal=True, no_color=True, _environ={"TERM": "xterm"})
    with terminal.capture() as shown:
        terminal.print(text)
    assert shown.get() == "\x1b[1mChange\x1b[0m the [\x1b[1mport\x1b[0m].\n"
    with (plain := Console(force_terminal=False)).capture() as shown:
        plain.print(text)
    assert shown.get() == "Change the [port].\n"


def test_commands_reach_the_running_server(server: LiveServer) -> None:
    home, folder = server.home, server.home.parent / "documents" / "cli"
    folder.mkdir(parents=True)
    (folder / "guide.md").write_text(GUIDE, encoding="utf-8")
    done = run("ingest", str(folder), "--index", "cli", "--json", home=home)
    assert json.loads(done.stdout)["status"] == "succeeded"
    asked = run("query", "the port?", "-i", "cli", "--json", home=home)
    assert json.loads(asked.stdout)["hits"][0]["heading"] == ["Guide", "Port"]
    limits = ("--max-tokens", "50", "--filter", '{"kinds": ["markdown"]}')
    asked = run("query", "port", "-i", "cli", "--mode", "lexical", *limits, "--explain", home=home)
    assert "lexical 1. (" in asked.stdout, asked.stderr
    asked = run("query", "port", "-i", "cli", "--min-score", "1", home=home)
    assert "Nothing is good enough" in asked.stderr
    refused = run("ingest", str(home), "--index", "cli", home=home)
    assert refused.returncode == 1
    assert "--allow" in refused.stderr
    listed = run("index", "list", home=home)
    assert "cli" in listed.stdout
    shown = json.loads(run("index", "show", "cli", "--json", home=home).stdout)
    assert shown["counts"]["reachable"] == 1
    jobs = json.loads(run("jobs", "list", "--json", home=home).stdout)["jobs"]
    [job] = [job for job in jobs if job["index"] == "cli"]
    assert job["status"] == "succeeded"
    details = run("jobs", "show", job["id"], "--all", home=home)
    assert "guide.md" in details.stdout
    server.http.delete("/indexes/cli").raise_for_status()


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["query", "a", "-i", "nope"], 3, "Index `nope` does not exist"),
        (["query", "a", "-i", "nope", "--filter", "{"], 1, "not valid JSON"),
        (["show", "nope"], 3, "model 'nope:latest' not found"),
        (["rm", "nope"], 3, "model 'nope' not found"),
        (["jobs", "show", "nope"], 3, "nope"),
        (["pull", "Bad Name"], 1, "invalid model name"),
        (["index", "create", "bad name"], 1, "is not valid"),
        (["index", "show", ""], 2, "empty"),
        (["index", "delete", ""], 2, "empty"),
        (["index", "show", "a/b"], 3, "not found"),
        (["index", "show", ".."], 3, "does not exist"),
        (["query", "a", "-i", "nope", "-k", "0"], 3, "does not exist"),
    ],
)
def test_mistakes_give_one_sentence_and_a_code(
    server: LiveServer,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    code: int,
    message: str,
) -> None:
    # In this very process: the same function, without the second that each start takes.
    with pytest.raises(SystemExit) as ended:
        run_command([*arguments, "--home", str(server.home)])
    told = " ".join(capsys.readouterr().err.split())
    assert (ended.value.code, message in told) == (code, True), told


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["show", "nope"], 3, "model 'nope:latest' not found"),
        (["embed", b"\xff".decode(errors="surrogateescape")], 1, "not valid UTF-8"),
        (["frobnicate"], 2, "frobnicate"),
        (["serve", "--port", "99999"], 1, "EMBEDSERVE_PORT"),
    ],
)
def test_a_process_that_met_a_mistake_ends_with_its_sentence_and_code(
    server: LiveServer, arguments: list[str], code: int, message: str
) -> None:
    done = run(*arguments, home=server.home)
    assert done.returncode == code, done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["query", "a", "-i", "nope"], "Index `nope` does not exist"),
        (["show", "nope"], "model 'nope:latest' not found"),
        (["pull", "no-such-model"], "is not in the library"),
    ],
)
def test_mistakes_are_told_in_the_same_words_without_a_server(
    home: Path, arguments: list[str], message: str
) -> None:
    done = run(*arguments, home=home)
    assert done.returncode == 3, done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_a_name_is_never_more_than_a_name(server: LiveServer) -> None:
    assert run("index", "create", "foo", home=server.home).returncode == 0
    assert run("index", "delete", "foo?bar=1", home=server.home).returncode == 3
    assert "foo" in run("index", "list", home=server.home).stdout
    server.http.delete("/indexes/foo").raise_for_status()


def test_standard_input_that_is_not_text_is_refused(home: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "embedserve", "embed", "--home", str(home)],
        env=environment(PYTHONUTF8="1"),
        input=b"one\n\xff\n",
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert b"not valid UTF-8" in done.stderr
    assert b"Traceback" not in done.stderr


def test_documents_and_paths_are_printed_as_they_are(server: LiveServer) -> None:
    home, documents = server.home, server.home.parent / "documents"
    folder = documents / ":warning: [bold]x[/bold]" / ("long-folder-name-" * 8)
    folder.mkdir(parents=True)
    (folder / ":smile:.md").write_text("# :warning: [red]\n\nSay :smile: [link]now[/link].\n")
    (folder / ":cry:.docx").write_bytes(b"PK\x03\x04 not really")
    done = run("ingest", str(folder), "-i", "printed", home=home, columns="80")
    assert (done.returncode, ":cry:.docx" in done.stderr) == (4, True)
    asked = run("query", "smile?", "-i", "printed", home=home, columns="80")
    assert "1. :warning: [red]" in asked.stdout
    assert "Say :smile: [link]now[/link]." in asked.stdout
    assert str(folder / ":smile:.md") in asked.stdout
    as_json = json.loads(run("query", "smile?", "-i", "printed", "--json", home=home).stdout)
    assert as_json["hits"][0]["document"]["path"] == str(folder / ":smile:.md")
    header, *listed = run("jobs", "list", home=home, columns="80").stdout.splitlines()
    jobs = json.loads(run("jobs", "list", "--json", home=home).stdout)["jobs"]
    assert len(listed) == len(jobs), f"one line for each job, however long, under {header}"
    [job] = [job["id"] for job in jobs if job["index"] == "printed"]
    [line] = [line for line in listed if line.endswith(str(folder))]
    assert line.startswith(f"{job}  printed ")
    shown = run("jobs", "show", job, home=home, columns="80").stdout
    assert str(folder / ":cry:.docx") in shown
    server.http.delete("/indexes/printed").raise_for_status()


def test_commands_at_the_same_time_all_succeed(home: Path, documents: Path) -> None:
    commands = [["ingest", str(documents), "-i", name] for name in ("one", "two")]
    commands += [["index", "list"]] * 3
    with ThreadPoolExecutor() as pool:
        for done in pool.map(lambda arguments: run(*arguments, home=home), commands):
            assert done.returncode == 0, done.stderr


def test_a_long_command_shares_no_house_of_another(home: Path) -> None:
    class Command(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("X-Embedserve-Command", "1")
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, format: str, *arguments: object) -> None:
            """Stay quiet."""

    told = rf"Another command \(process {os.getpid()}\) is using .* Run this one again"
    with serving_on(on_free_port(Command)) as url, HomeLock(home) as lock:
        lock.announce(url)
        with (
            pytest.raises(StartupError, match=told),
            connect(home, is_long=True, patience_s=0.1),
        ):
            pass
        with connect(home, patience_s=0.1) as client:
            assert client.get("health") == {}, "a short one is a guest of that house"


def test_only_ingest_takes_up_jobs_that_were_left(home: Path, documents: Path) -> None:
    assert run("index", "create", "notes", home=home).returncode == 0
    with Catalog(home / "catalog.sqlite3") as catalog:
        left = catalog.jobs.create("notes", str(documents))
    [job] = json.loads(run("jobs", "list", "--json", home=home).stdout)["jobs"]
    assert (job["id"], job["status"], job["started_at"]) == (left.id, "queued", None)
    with Catalog(home / "catalog.sqlite3") as catalog:
        assert catalog.jobs.get(left.id) == left
    assert run("ingest", str(documents), "-i", "notes", home=home).returncode == 0
    with Catalog(home / "catalog.sqlite3") as catalog:
        assert [job.status for job in catalog.jobs.latest(10)] == ["succeeded", "succeeded"]


def test_a_server_names_its_default_model_at_once_and_ends_in_order_when_interrupted(
    home: Path,
) -> None:
    with LiveServer(home, settings={"EMBEDSERVE_DEFAULT_MODEL": "all-minilm:22m"}) as server:
        server.wait_for_log("How do I change the port?")
        assert '"model": "all-minilm:22m"' in server.log()
        os.kill(server.pid, signal.SIGINT)
        assert server.process.wait(20) == 0
        assert "Traceback" not in server.log()


def test_an_unknown_setting_is_named_with_its_neighbour(home: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "embedserve", "list", "--home", str(home)],
        env=environment(EMBEDSERVE_PROT="1"),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert "Did you mean `EMBEDSERVE_PORT`?" in done.stderr


def test_a_taken_port_is_explained(home: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = run("serve", "--port", str(port), home=home)
    assert done.returncode == 1
    assert f"Port {port} on 127.0.0.1 cannot be used" in done.stderr
    assert "--port" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_second_server_on_the_same_home_is_refused(server: LiveServer) -> None:
    done = run("serve", "--port", "0", home=server.home)
    assert done.returncode == 1
    assert f"in use by process {server.pid}" in done.stderr
    assert str(server.http.base_url).rstrip("/") in done.stderr


def test_definitions_become_indexes_and_bad_ones_are_named(home: Path, documents: Path) -> None:
    definitions = home.parent / "indexes"
    definitions.mkdir()
    (definitions / "manual.toml").write_text('[[sources]]\npath = "../documents"\n')
    settings = {"EMBEDSERVE_DEFINITIONS": str(definitions)}
    with LiveServer(home, settings=settings, arguments=["--refresh"]) as server:
        server.wait_for_log("Try it")  # printed once the refresh is over
        reply = server.http.post("/indexes/manual/ingest")  # its sources are allowed roots
        assert server.wait_for_job(reply.json()["id"])["counts"] == {"unchanged": 1}
        assert len(server.query("manual", "port")) == 1
    (definitions / "manual.toml").write_text("chunkign = 3\n")
    done = subprocess.run(
        [sys.executable, "-m", "embedserve", "serve", "--port", "0", "--home", str(home)],
        env=environment(**settings),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert "Did you mean `chunking`?" in done.stderr


def test_a_refused_ingest_leaves_no_index_behind(home: Path) -> None:
    refused = run("ingest", "/no/such/folder", "-i", "left", home=home)
    assert refused.returncode == 3
    assert "/no/such/folder" in refused.stderr
    assert "Created" not in refused.stderr
    assert "Traceback" not in refused.stderr
    with Catalog(home / "catalog.sqlite3") as catalog:
        assert catalog.indexes.all() == []


def test_a_job_is_foretold_tried_again_and_followed(server: LiveServer) -> None:
    folder = server.home.parent / "documents" / "cli-jobs"
    folder.mkdir(parents=True)
    (folder / "bad.docx").write_bytes(b"PK\x03\x04 this is no archive")
    dry = run("ingest", str(folder), "-i", "cli-jobs", "--dry-run", home=server.home)
    assert (dry.returncode, dry.stdout.splitlines()[0]) == (0, "would be: 1 added; 0.0 MB to read")
    assert server.http.get("/indexes/cli-jobs").status_code == 404
    done = run("ingest", str(folder), "-i", "cli-jobs", home=server.home)
    assert (done.returncode, "1 failed" in done.stdout) == (4, True), done.stderr
    assert "corrupt" in done.stderr
    again = run("ingest", "--retry", "-i", "cli-jobs", "--json", home=server.home)
    job = json.loads(again.stdout)
    assert (again.returncode, job["counts"]) == (4, {"failed": 1})
    watched = run("jobs", "watch", job["id"], home=server.home)
    assert (watched.returncode, "1 failed" in watched.stdout) == (4, True)
    server.http.delete("/indexes/cli-jobs").raise_for_status()
