"""The official client of the Model Context Protocol, over HTTP and over standard input."""

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import httpx
import httpx2
import pytest
from mcp import Client, StdioServerParameters
from mcp.client.client import ConnectMode
from mcp.client.streamable_http import streamable_http_client
from mcp.types import TextContent

from tests.clients.conftest import OWNER, READER, WRITER, FrontEnd, bearer
from tests.live import LiveServer, environment

T = TypeVar("T")
QUESTION = "What happens to a String when its variable goes out of scope?"
READING = ["search", "fetch", "search_chunks", "list_indexes", "read_range"]
WRITING = ["add_text", "ingest_path", "get_job"]


@asynccontextmanager
async def connected(url: str, key: str, mode: ConnectMode = "auto") -> AsyncIterator[Client]:
    http = httpx2.AsyncClient(headers=bearer(key), timeout=60, trust_env=False)
    async with http, Client(streamable_http_client(url, http_client=http), mode=mode) as client:
        yield client


async def answered(client: Client, tool: str, **arguments: object) -> dict[str, Any]:
    """Return what a tool answers, which says the same twice."""
    result = await client.call_tool(tool, arguments)
    [item] = result.content
    assert isinstance(item, TextContent)
    assert not result.is_error, item.text
    assert json.loads(item.text) == result.structured_content
    told: dict[str, Any] = result.structured_content
    return told


async def refusal(client: Client, tool: str, **arguments: object) -> str:
    result = await client.call_tool(tool, arguments)
    [item] = result.content
    assert isinstance(item, TextContent)
    assert result.is_error
    return item.text


def over_http(
    front_end: FrontEnd,
    work: Callable[[Client], Awaitable[T]],
    key: str = READER,
    *,
    query: str = "",
    mode: ConnectMode = "auto",
) -> T:
    async def run() -> T:
        async with connected(f"{front_end.url}/mcp{query}", key, mode) as client:
            return await work(client)

    return asyncio.run(run())


@pytest.mark.parametrize("mode", ["auto", "legacy"])
def test_a_model_searches_and_fetches_as_chatgpt_does(
    front_end: FrontEnd, mode: ConnectMode
) -> None:
    async def work(client: Client) -> tuple[dict[str, Any], dict[str, Any]]:
        found = await answered(client, "search", query=QUESTION)
        return found, await answered(client, "fetch", id=found["results"][0]["id"])

    found, whole = over_http(front_end, work, mode=mode)
    assert set(found) == {"results"}
    titles = [one["title"] for one in found["results"]]
    assert titles[0] == "What Is Ownership?"
    assert len(titles) == len(set(titles)), "a document is named once"
    assert set(whole) == {"id", "title", "text", "url", "metadata"}
    source = (front_end.folder / "book" / "ch04-01-what-is-ownership.md").read_text()
    assert "Rust calls `drop` automatically" in " ".join(whole["text"].split())
    assert len(whole["text"]) > 0.95 * len(source)
    for link in (found["results"][0]["url"], whole["url"]):
        page = httpx.get(link, trust_env=False)  # as a person follows it: without a key
        assert page.status_code == 200
        assert "What Is Ownership?" in page.text


def test_passages_are_narrowed_and_read_on(front_end: FrontEnd) -> None:
    async def work(client: Client) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        found = await answered(
            client,
            "search_chunks",
            query=QUESTION,
            indexes=["book"],
            k=3,
            filter={"paths": ["*ch04-02*"]},
        )
        hit = found["hits"][0]
        at = {"id": hit["id"], "start": hit["end"], "end": hit["end"] + 300}
        return found["hits"], await answered(client, "read_range", **at)

    hits, following = over_http(front_end, work)
    assert len(hits) == 3
    assert {hit["path"].rpartition("/")[2] for hit in hits} == {
        "ch04-02-references-and-borrowing.md"
    }
    assert all(0 <= hit["score"] <= 1 and hit["text"] for hit in hits)
    source = (front_end.folder / "book" / "ch04-02-references-and-borrowing.md").read_text()
    end = hits[0]["end"]
    assert following["text"].split() == source[end : end + 300].split()
    assert following["metadata"]["end"] <= end + 300


def test_who_may_only_read_has_no_tool_that_writes(front_end: FrontEnd) -> None:
    async def work(client: Client) -> tuple[list[str], str]:
        tools = (await client.list_tools()).tools
        assert all(tool.output_schema and tool.description for tool in tools)
        return [tool.name for tool in tools], await refusal(
            client, "add_text", index="book", text="A text."
        )

    names, refused = over_http(front_end, work)
    assert names == READING
    assert "read+ingest" in refused
    for key in (WRITER, OWNER):
        names, refused = over_http(front_end, work_of_a_writer, key)
        assert names == [*READING, *WRITING]
        assert "`nope`" in refused


async def work_of_a_writer(client: Client) -> tuple[list[str], str]:
    tools = (await client.list_tools()).tools
    return [tool.name for tool in tools], await refusal(
        client, "add_text", index="nope", text="A text."
    )


def test_without_keys_nothing_is_written(server: LiveServer) -> None:
    async def run() -> list[str]:
        async with Client(f"{server.http.base_url}/mcp") as client:
            return [tool.name for tool in (await client.list_tools()).tools]

    assert asyncio.run(run()) == READING


def test_a_writer_adds_a_text_and_finds_it(front_end: FrontEnd) -> None:
    front_end.live.http.put("/indexes/notes", json={}).raise_for_status()
    text = "The spare key of the boat house hangs behind the barometer."

    async def work(client: Client) -> dict[str, Any]:
        job = (await answered(client, "add_text", index="notes", text=text, name="k.md"))["job"]
        front_end.live.wait_for_job(job)
        told = await answered(client, "get_job", job=job)
        assert told["status"] == "succeeded"
        return await answered(client, "search", query="Where is the key of the boat house?")

    try:
        found = over_http(front_end, work, WRITER, query="?index=notes")
        assert [one["title"] for one in found["results"]] == ["k"]
    finally:
        front_end.live.http.delete("/indexes/notes").raise_for_status()


def test_an_address_may_be_limited_to_some_indexes(front_end: FrontEnd) -> None:
    identifier = over_http(front_end, first_id)

    async def work(client: Client) -> list[str]:
        return [
            await refusal(client, "search", query=QUESTION),
            await refusal(client, "search_chunks", query=QUESTION, indexes=["book"]),
            await refusal(client, "fetch", id=identifier),
        ]

    assert all("book" in text or "other" in text
               for text in over_http(front_end, work, query="?index=other"))  # fmt: skip


async def first_id(client: Client) -> str:
    found = await answered(client, "search", query=QUESTION)
    return str(found["results"][0]["id"])


def test_what_a_model_does_wrong_is_told_to_it(front_end: FrontEnd) -> None:
    async def work(client: Client) -> list[str]:
        return [
            await refusal(client, "search", question="a"),
            await refusal(client, "search", query=" "),
            await refusal(client, "fetch", id="1"),
            await refusal(client, "fetch", id="1-00000000000000000000"),
            await refusal(client, "search_chunks", query="a", filter={"paths": 5}),
            await refusal(client, "nope"),
        ]

    words = ("`query`", "empty", "none of those", "no document", "filter.paths", "`search`")
    for told, word in zip(over_http(front_end, work), words, strict=True):
        assert word in told


def test_keys_are_asked_for(front_end: FrontEnd) -> None:
    body = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
    headers = {"Accept": "application/json, text/event-stream"}
    for key, status in (("", 401), ("wrong-0123456789", 401), (READER, 200)):
        given = {**headers, **(bearer(key) if key else {})}
        reply = httpx.post(f"{front_end.url}/mcp", json=body, headers=given, trust_env=False)
        assert reply.status_code == status, reply.text
    listening = httpx.get(f"{front_end.url}/mcp", headers=bearer(READER), trust_env=False)
    assert listening.status_code in (403, 405), "there is nothing to listen to"


def test_standard_input_leads_to_the_running_server(front_end: FrontEnd) -> None:
    command = ["-m", "embedserve", "mcp", "--index", "book", "--home", str(front_end.live.home)]

    async def run() -> tuple[list[str], dict[str, Any], str]:
        started = StdioServerParameters(
            command=sys.executable, args=command, env=environment(EMBEDSERVE_API_KEY=READER)
        )
        async with Client(started) as client:
            tools = [tool.name for tool in (await client.list_tools()).tools]
            found = await answered(client, "search", query=QUESTION)
            return tools, found, await refusal(client, "search", query="")

    tools, found, refused = asyncio.run(run())
    assert tools == READING
    assert found["results"][0]["title"] == "What Is Ownership?"
    assert "empty" in refused
    done = subprocess.run(
        [sys.executable, *command],
        env=environment(EMBEDSERVE_API_KEY="wrong-0123456789"),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert "EMBEDSERVE_API_KEY" in done.stderr
    assert done.stdout == ""
