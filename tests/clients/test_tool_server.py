"""An OpenAPI tool server as Open WebUI uses one: each operation becomes a tool of a model."""

from collections.abc import Iterator
from contextlib import closing
from typing import Any

import httpx
import pytest

from tests.clients.conftest import READER, WRITER, FrontEnd, bearer

QUESTION = "What happens to a String when its variable goes out of scope?"


class ToolServer:
    """What Open WebUI makes of an address: `backend/open_webui/utils/tools.py` of it."""

    def __init__(self, url: str, key: str) -> None:
        self.url = url
        self.http = httpx.Client(headers=bearer(key), timeout=60, trust_env=False)
        self.document = self.http.get(f"{url}/openapi.json").json()

    def tools(self) -> dict[str, dict[str, Any]]:
        """Return what a model is told: name, description and parameters of each operation."""
        found = {}
        for methods in self.document["paths"].values():
            for operation in methods.values():
                schema = operation["requestBody"]["content"]["application/json"]["schema"]
                assert "$ref" not in str(schema)
                found[operation["operationId"]] = {
                    "description": operation.get("description") or operation["summary"],
                    "parameters": schema["properties"],
                    "required": schema.get("required", []),
                }
        return found

    def call(self, name: str, **arguments: object) -> httpx.Response:
        [path] = [
            path
            for path, methods in self.document["paths"].items()
            if methods["post"]["operationId"] == name
        ]
        return self.http.post(f"{self.url}{path}", json=arguments)


@pytest.fixture
def tool_server(front_end: FrontEnd) -> Iterator[ToolServer]:
    found = ToolServer(f"{front_end.url}/tools", READER)
    with closing(found.http):
        yield found


def test_a_model_is_told_of_tools_by_plain_names(
    front_end: FrontEnd, tool_server: ToolServer
) -> None:
    tools = tool_server.tools()
    assert set(tools) == {"search", "fetch", "search_chunks", "list_indexes", "read_range"}
    assert all(len(tool["description"]) > 40 for tool in tools.values())
    assert tools["search_chunks"]["required"] == ["query"]
    assert all(
        "description" in one for tool in tools.values() for one in tool["parameters"].values()
    )
    assert tool_server.document["servers"] == [{"url": tool_server.url}]
    writer = ToolServer(f"{front_end.url}/tools", WRITER)
    with closing(writer.http):
        assert "add_text" in writer.tools()


def test_a_model_searches_and_reads(tool_server: ToolServer) -> None:
    found = tool_server.call("search", query=QUESTION).json()["results"]
    assert found[0]["title"] == "What Is Ownership?"
    whole = tool_server.call("fetch", id=found[0]["id"]).json()
    assert "`drop`" in whole["text"]
    [index] = [
        one for one in tool_server.call("list_indexes").json()["indexes"] if one["name"] == "book"
    ]
    assert index["documents"] == 5
    hits = tool_server.call("search_chunks", query=QUESTION, indexes=["book"], k=2).json()["hits"]
    assert [hit["index"] for hit in hits] == ["book", "book"]


def test_what_is_wrong_is_told(front_end: FrontEnd, tool_server: ToolServer) -> None:
    wrong = tool_server.call("search", question="a")
    assert (wrong.status_code, "`query`" in wrong.json()["error"]) == (400, True)
    for name in ("nope", "add_text"):
        reply = tool_server.http.post(f"{tool_server.url}/{name}", json={})
        assert (reply.status_code, "`search`" in reply.json()["error"]) == (404, True)
    anybody = httpx.get(f"{front_end.url}/tools/openapi.json", trust_env=False)
    assert anybody.status_code == 401
