"""The tools that models have here, by any protocol: names, what is said of each, who may use it.

Tools that write are there for callers whose key has the scope `ingest`.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from embedserve.api import tools
from embedserve.api.body import check_model
from embedserve.api.schema_parts import Schema
from embedserve.api.tool_schemas import (
    ADDED,
    CHUNKS,
    DOCUMENT,
    INDEXES,
    JOB,
    RANGE,
    RESULTS,
    AddTextArguments,
    Arguments,
    ChunksArguments,
    FetchArguments,
    IngestArguments,
    JobArguments,
    NoArguments,
    RangeArguments,
    SearchArguments,
)
from embedserve.api.tools import Call
from embedserve.errors import NotFoundError


@dataclass(frozen=True)
class ToolRow:
    """What a model is told of a tool, and what carries it out."""

    description: str
    arguments: type[Arguments]
    answer: Schema
    call: Callable[[Call, Any], Awaitable[dict[str, Any]]]
    writes: bool = False


TOOLS: dict[str, ToolRow] = {
    "search": ToolRow(
        "Find the documents that answer a question, in the user's own files. Returns ids for "
        "`fetch`, with titles and links; ask in whole sentences.",
        *(SearchArguments, RESULTS, tools.search),
    ),
    "fetch": ToolRow(
        "Read a document that `search` found. Of a long one the part around the passage that was "
        "found; `metadata` tells which part it is, and `read_range` gives the others.",
        *(FetchArguments, DOCUMENT, tools.fetch),
    ),
    "search_chunks": ToolRow(
        "Find passages with their text, score (0 to 1), page and place; by index, by filter, by "
        "vectors or words alone. Use it where `search` is too coarse.",
        *(ChunksArguments, CHUNKS, tools.search_chunks),
    ),
    "list_indexes": ToolRow(
        "List the indexes, which are collections of documents, and how much they hold.",
        *(NoArguments, INDEXES, tools.list_indexes),
    ),
    "read_range": ToolRow(
        "Read a part of a document by characters, such as what follows a passage that was found.",
        *(RangeArguments, RANGE, tools.read_range),
    ),
    "add_text": ToolRow(
        "Add a text to an index as a document, or replace the one of that name. Returns a job.",
        *(AddTextArguments, ADDED, tools.add_text),
        writes=True,
    ),
    "ingest_path": ToolRow(
        "Have a folder or file of the server's machine read into an index. Returns a job.",
        *(IngestArguments, ADDED, tools.ingest_path),
        writes=True,
    ),
    "get_job": ToolRow(
        "Tell how far a job is that `add_text` or `ingest_path` began.",
        *(JobArguments, JOB, tools.get_job),
        writes=True,
    ),
}


def rows_for(call: Call) -> list[tuple[str, ToolRow]]:
    """Return the tools that a caller has."""
    return [(name, row) for name, row in TOOLS.items() if call.may_write or not row.writes]


async def answer_of(call: Call, name: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """Carry out a tool; raise NotFoundError for one that the caller has not."""
    row = TOOLS.get(name)
    if row is None or (row.writes and not call.may_write):
        known = ", ".join(f"`{tool}`" for tool, one in TOOLS.items() if not one.writes)
        hint = " It writes: send a key with the scopes `read+ingest`." if row else ""
        raise NotFoundError(f"There is no tool `{name[:100]}` here.{hint} There are {known}.")
    return await row.call(call, check_model(arguments, row.arguments))
