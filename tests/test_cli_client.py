"""The client of the commands, against small servers that answer as a test wants."""

import json
from collections.abc import Callable, Iterator

import httpx
import pytest
import typer
from typer.testing import CliRunner

from embedserve import __version__
from embedserve.cli.app import app
from embedserve.cli.client import Client
from embedserve.cli.job_display import fetch_job, file_results
from embedserve.errors import EmbedserveError, InvalidRequestError, NotFoundError

Answer = Callable[[httpx.Request], httpx.Response]


def client(answer: Answer) -> Client:
    http = httpx.Client(transport=httpx.MockTransport(answer), base_url="http://test")
    return Client(http)


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("foo?bar=1", "/indexes/foo%3Fbar%3D1"),
        ("a/b", "/indexes/a%2Fb"),
        ("a#b", "/indexes/a%23b"),
        ("..", "/indexes/%2E%2E"),
        ("50%", "/indexes/50%25"),
        ("häuser", "/indexes/h%C3%A4user"),
        ("\udcff", "/indexes/%FF"),
    ],
)
def test_names_reach_the_server_whole(name: str, path: str) -> None:
    asked: list[bytes] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request.url.raw_path)
        return httpx.Response(200, json={})

    client(answer).delete("indexes", name)
    assert asked == [path.encode()]


def test_an_empty_name_is_wrong_usage() -> None:
    with pytest.raises(typer.BadParameter, match="empty"):
        client(lambda _: httpx.Response(200, json={})).get("indexes", "")


@pytest.mark.parametrize(
    ("reply", "error"),
    [
        (httpx.Response(307, headers={"Location": "/"}), EmbedserveError),
        (httpx.Response(200, text="<html>"), EmbedserveError),
        (httpx.Response(404, json={"error": "no"}), NotFoundError),
        (httpx.Response(500, json={"error": {"message": "no"}}), EmbedserveError),
    ],
)
def test_what_is_no_success_is_an_error(
    reply: httpx.Response, error: type[EmbedserveError]
) -> None:
    calls: list[Callable[[Client], object]] = [
        lambda client: client.get("jobs"),
        lambda client: list(client.lines("api", "pull", body={})),
    ]
    for call in calls:
        with pytest.raises(error):
            call(client(lambda _: reply))


class CutStream(httpx.SyncByteStream):
    def __iter__(self) -> Iterator[bytes]:
        yield b'{"status": "exporting"}\n'
        raise httpx.RemoteProtocolError("peer closed connection")


def test_a_stream_that_is_cut_is_an_error_with_advice() -> None:
    steps = client(lambda _: httpx.Response(200, stream=CutStream())).lines("api", "pull", body={})
    assert next(steps) == {"status": "exporting"}
    with pytest.raises(EmbedserveError, match="Look at its log"):
        next(steps)


def test_text_that_is_not_utf_8_is_named() -> None:
    with pytest.raises(InvalidRequestError, match="not valid UTF-8"):
        client(lambda _: httpx.Response(200, json={})).post("a", body={"path": "/x\udcff"})


def test_every_page_of_a_job_is_fetched() -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        query = request.url.params
        assert query.get_list("outcome") in (["failed"], [])
        first = int(query.get("offset", 0))
        numbers = range(first, min(first + int(query["limit"]), 2_345))
        files = [{"path": f"/{number}"} for number in numbers]
        return httpx.Response(200, json={"id": "j", "files": files, "next_offset": 1})

    found = list(file_results(client(answer), "j", ["failed"]))
    assert [file["path"] for file in found] == [f"/{number}" for number in range(2_345)]
    assert json.dumps(fetch_job(client(answer), "j")) == '{"id": "j"}'


def test_the_version_is_told() -> None:
    told = CliRunner().invoke(app, ["--version"])
    assert told.exit_code == 0
    assert told.stdout == f"embedserve {__version__}\n"
