"""`embedserve mcp`: the tools of a running server over standard input and output.

A pipe, no second house: each message goes to the server's `/mcp`, and its answer comes back.
"""

import asyncio
import logging
from typing import Annotated, Any

import httpx
import typer

from embedserve import __version__
from embedserve.bootstrap.sources import read_all
from embedserve.cli.client import TIMEOUT_S, Home, client_of, find_server, headers_of
from embedserve.store.home_lock import owner_key

Limited = Annotated[
    list[str] | None,
    typer.Option("--index", help="Let it search this index alone; may be given several times."),
]
Url = Annotated[
    str | None,
    typer.Option(
        "--url",
        help="Address of the server, such as http://192.168.1.5:11434; without it, the one that "
        "runs on the home.",
        show_default=False,
    ),
]


def mcp(indexes: Limited = None, url: Url = None, home: Home = None) -> None:
    """Offer search and reading to a model by the Model Context Protocol, over standard input."""
    settings = read_all({"home": home, "log_level": "warning"}).settings
    address = url.rstrip("/") if url else find_server(settings.home)
    own_key = "" if url else owner_key(settings.home)
    with client_of(address, settings.api_key, own_key=own_key) as client:
        for name in indexes or []:
            client.get("indexes", name)  # says at once what is wrong: name, key or address
        client.get("api", "tags")
    logging.basicConfig(level=logging.WARNING)  # to standard error; the other is the protocol's
    target = httpx.URL(f"{address}/mcp", params={"index": indexes} if indexes else None)
    asyncio.run(_pipe(str(target), headers_of(settings.api_key, own_key)))


async def _pipe(url: str, headers: dict[str, str]) -> None:
    """Answer what comes by standard input until it ends."""
    # The SDK takes half a second to load: here, and not with every other command.
    from httpx2 import AsyncClient
    from mcp import Client, stdio_server
    from mcp.client.streamable_http import streamable_http_client
    from mcp.server.context import ServerRequestContext
    from mcp.server.lowlevel import Server
    from mcp.types import (
        CallToolRequestParams,
        CallToolResult,
        ListToolsResult,
        PaginatedRequestParams,
    )

    # A proxy of the environment must not see the key.
    http = AsyncClient(headers=headers, timeout=TIMEOUT_S, trust_env=False)
    transport = streamable_http_client(url, http_client=http)
    async with http, Client(transport, cache=None) as remote:

        async def list_tools(
            _: ServerRequestContext[Any, Any], params: PaginatedRequestParams | None
        ) -> ListToolsResult:
            return await remote.list_tools(cursor=params.cursor if params else None)

        async def call_tool(
            _: ServerRequestContext[Any, Any], params: CallToolRequestParams
        ) -> CallToolResult:
            return await remote.call_tool(params.name, params.arguments)

        server: Server[Any] = Server(
            "embedserve",
            version=__version__,
            instructions=remote.instructions,
            on_list_tools=list_tools,
            on_call_tool=call_tool,
        )
        async with stdio_server() as (read, write):
            await server.run(read, write, server.create_initialization_options())
