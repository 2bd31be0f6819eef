"""The tools of `tool_table.py` as an OpenAPI tool server below `/tools`, as Open WebUI calls them.

`/tools/openapi.json` tells of them alone; the server's own document has dozens of operations more,
whose names are not for models.
"""

from typing import Any

from fastapi import APIRouter, Request, Response

from embedserve import __version__
from embedserve.api.body import read_object, schema_of
from embedserve.api.replies import json_reply
from embedserve.api.schema_parts import JSON, NATIVE_ERROR, OBJECT, answers, given
from embedserve.api.tool_table import ToolRow, answer_of, rows_for
from embedserve.api.tools import Call

router = APIRouter(tags=["tools"])

_BODY = {"requestBody": {"required": True, "content": {JSON: {"schema": OBJECT}}}}


@router.get("/tools/openapi.json", responses={200: given("An OpenAPI document.", OBJECT)})
async def describe_tools(request: Request) -> Response:
    """Describe the tools that models have, as an OpenAPI tool server does."""
    return json_reply(document_of(Call.of(request)), media_type=JSON)


@router.post(
    "/tools/{name}",
    openapi_extra=_BODY,
    responses=answers(given("The tool's answer.", OBJECT), "400 404 409 413 503"),
)
async def call_tool(request: Request, name: str) -> Response:
    """Carry out a tool for a model; `/tools/openapi.json` tells of each."""
    arguments = await read_object(request)
    return json_reply(await answer_of(Call.of(request), name, arguments), media_type=JSON)


def document_of(call: Call) -> dict[str, Any]:
    """Return the OpenAPI document of the tools that a caller has."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Documents",
            "version": __version__,
            "description": "Search and read the documents of this server's indexes.",
        },
        "servers": [{"url": call.url("/tools")}],
        "paths": {f"/{name}": {"post": _operation(name, row)} for name, row in rows_for(call)},
        "components": {"securitySchemes": {"key": {"type": "http", "scheme": "bearer"}}},
        "security": [{"key": []}],
    }


def _operation(name: str, row: ToolRow) -> dict[str, Any]:
    return {
        "operationId": name,
        "summary": row.description.partition(".")[0] + ".",
        "description": row.description,
        "requestBody": {
            "required": True,
            "content": {JSON: {"schema": schema_of(row.arguments)}},
        },
        "responses": {
            "200": given("What was found.", row.answer),
            **{
                status: given("What was wrong, and what to do.", NATIVE_ERROR)
                for status in ("400", "404")
            },
        },
    }
