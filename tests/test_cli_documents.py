"""Documents of an index from the command line, beside a running server and without one."""

import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from embedserve.cli.app import app
from embedserve.cli.documents import parse_fields
from embedserve.errors import InvalidRequestError, NotFoundError, PathNotFoundError
from tests.live import LiveServer
from tests.test_cli import run

INDEX = ("-i", "cli-sent")


def call(*arguments: str, home: Path, stdin: str | None = None) -> Result:
    """Run a command of `embedserve documents` in this process, which costs no start."""
    return CliRunner().invoke(
        app, ["documents", *arguments, *INDEX, "--home", str(home)], input=stdin
    )


def paths(*arguments: str, home: Path) -> list[str]:
    reply = json.loads(call("list", *arguments, "--json", home=home).stdout)
    return [document["path"] for document in reply["documents"]]


def test_metadata_is_read_as_people_write_it() -> None:
    pairs = ["team=a b", "year=2024", 'tag="2024"', "draft=true", "note=a=b", "none=", "list=[1]"]
    assert parse_fields(pairs) == {
        "team": "a b", "year": 2024, "tag": "2024", "draft": True, "note": "a=b", "none": "",
        "list": "[1]",
    }  # fmt: skip
    with pytest.raises(typer.BadParameter, match="KEY=VALUE"):
        parse_fields(["team"])


def test_documents_are_added_listed_shown_and_deleted(server: LiveServer, tmp_path: Path) -> None:
    guide, broken = tmp_path / 'ü "guide".md', tmp_path / "broken.docx"
    guide.write_text("# Port\n\nThe port is 11434.\n", encoding="utf-8")
    broken.write_bytes(b"PK\x03\x04 not really")
    home = server.home
    about = ("--metadata", "team=a", "--metadata", "year=2024", "--title", "Manual")
    alone = call("add", str(guide), *about, home=home)
    assert (alone.exit_code, "1 added" in alone.stdout) == (0, True), alone.output
    failed = call("add", str(broken), home=home)
    assert (failed.exit_code, "1 failed" in failed.stdout) == (4, True), failed.output
    head, row, *_ = failed.stderr.splitlines()[-3:]
    assert head.split() == ["OUTCOME", "CODE", "FILES", "FILE", "REASON"]
    assert row.split()[:4] == ["failed", "corrupt", "1", "broken.docx"]
    tea = "Green tea is brewed at 70 degrees.\n"
    sent = call("add", "-", "--name", "notes/tea.md", "--json", home=home, stdin=tea)
    assert json.loads(sent.stdout)["counts"] == {"added": 1}

    listed = call("list", "--status", "unreadable", home=home)
    assert [line.split()[-1] for line in listed.stdout.splitlines()] == ["STATUS", "corrupt"]
    page = json.loads(call("list", "--limit", "1", "--offset", "1", "--json", home=home).stdout)
    assert [one["path"] for one in page["documents"]] == ["notes/tea.md"]
    assert page["next_offset"] == 2
    filters = ("--metadata", "year=2024", "--glob", "*guide*", "--source", "upload")
    assert paths(*filters, home=home) == [guide.name]
    shown = call("show", guide.name, home=home).stdout
    assert "Manual" in shown
    assert "metadata team" in shown
    server.http.delete("/indexes/cli-sent").raise_for_status()


def test_more_than_what_was_named_is_deleted_only_when_it_was_agreed_to(
    server: LiveServer,
) -> None:
    home = server.home
    for name in ("a/1", "a/2", "b/1", "b/2"):
        call("add", "-", "--name", f"{name}.md", home=home, stdin=f"This is {name}.")
    refused = call("rm", "--glob", "*", home=home, stdin="n\n")
    assert (refused.exit_code, "Delete 4 documents?" in refused.stderr) == (1, True)
    unanswered = call("rm", "--glob", "*", home=home)
    assert unanswered.exit_code == 1
    assert len(paths(home=home)) == 4
    agreed = call("rm", "--glob", "a/*", "--yes", home=home)
    assert (agreed.exit_code, agreed.stdout) == (0, "deleted 2 documents\n")
    missing = call("rm", "b/1.md", "nope", home=home)
    assert isinstance(missing.exception, NotFoundError)
    assert paths(home=home) == ["b/1.md", "b/2.md"], "all that is named, or nothing"
    named = call("rm", "b/1.md", "b/2.md", "--json", home=home)
    assert json.loads(named.stdout) == {"deleted": 2, "warnings": []}
    for wrong in ((), ("a", "--glob", "*")):
        assert call("rm", *wrong, home=home).exit_code == 2
    server.http.delete("/indexes/cli-sent").raise_for_status()


def test_what_cannot_be_sent_is_named_before_anything_is(tmp_path: Path) -> None:
    quoted = [tmp_path / name for name in ("a.md", 'a "b".md')]
    for file in quoted:
        file.touch()
    alone = call("add", *map(str, quoted), home=tmp_path)
    assert isinstance(alone.exception, InvalidRequestError)
    assert "quotation mark" in str(alone.exception)
    folder = call("add", str(tmp_path), home=tmp_path)
    assert isinstance(folder.exception, PathNotFoundError)
    assert "embedserve ingest" in str(folder.exception)


def test_documents_are_added_without_a_server(home: Path, tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text("# Port\n\nThe port is 11434.\n", encoding="utf-8")
    (tmp_path / "b.md").write_text("# Lamp\n\nThe lamp is green.\n", encoding="utf-8")
    files = (str(tmp_path / "a.md"), str(tmp_path / "b.md"))
    added = run("documents", "add", *files, home=home)
    assert added.returncode == 0, added.stderr
    assert "Created index default." in added.stderr
    listed = json.loads(run("documents", "list", "--json", home=home).stdout)
    assert [(one["path"], one["chunks"]) for one in listed["documents"]] == [
        ("a.md", 1),
        ("b.md", 1),
    ]
