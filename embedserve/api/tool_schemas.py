"""What the tools of `tools.py` are asked and answer. Descriptions are read by models."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema

from embedserve.api.schema_parts import OBJECT, STRINGS, TEXT, WHOLE, Schema, shape
from embedserve.services.filters import FILTER_SCHEMA
from embedserve.services.search_request import Mode


class Arguments(BaseModel):
    """What every tool's arguments have in common: an unknown one is an error."""

    model_config = ConfigDict(extra="forbid")


class NoArguments(Arguments):
    """None."""


class SearchArguments(Arguments):
    """What to look for."""

    query: str = Field(description="The question, as a person asks it.")


class FetchArguments(Arguments):
    """Which document."""

    id: str = Field(description="An id that a search returned.")


class RangeArguments(FetchArguments):
    """Which part of it."""

    start: int = Field(ge=0, le=10**12, description="The first character.")
    end: int = Field(ge=1, le=10**12, description="The one after the last.")


class ChunksArguments(SearchArguments):
    """What to look for, where and how."""

    indexes: list[str] = Field(default=[], description="Names of indexes; none: every index.")
    k: int = Field(default=8, ge=1, le=50, description="Passages to return.")
    mode: Mode | None = Field(default=None, description="By vectors and words, or by one of them.")
    min_score: float | None = Field(
        default=None, ge=0, le=1, description="Leave out passages of a smaller score."
    )
    filter: Annotated[
        dict[str, Any] | None,
        Field(description='Documents to look in, such as {"paths": ["notes/*"]}.'),
        WithJsonSchema(FILTER_SCHEMA),
    ] = None


class AddTextArguments(Arguments):
    """A document."""

    index: str = Field(description="The index, which exists.")
    text: str = Field(description="What the document says.")
    name: str | None = Field(
        default=None, description="What it is listed under, such as `notes/today.md`."
    )
    title: str = Field(default="", description="Its title.")
    metadata: dict[str, Any] | None = Field(default=None, description="Returned with hits.")


class IngestArguments(Arguments):
    """What to read into which index."""

    index: str = Field(description="The index, which exists.")
    path: str | None = Field(
        default=None, description="Absolute path of a folder or file; none: the index's sources."
    )


class JobArguments(Arguments):
    """Which job."""

    job: str = Field(description="The id that the tool gave that began it.")


def _some(fields: dict[str, Schema], more: dict[str, Schema]) -> Schema:
    """Return an object that always has the first fields, and the others where they say a thing."""
    return shape({**fields, **more}, list(fields))


_NOTES: dict[str, Schema] = {"warnings": STRINGS, "suggestions": OBJECT}
_RESULT: dict[str, Schema] = {"id": TEXT, "title": TEXT, "url": TEXT}
_HIT: dict[str, Schema] = {
    **_RESULT,
    "index": TEXT,
    "path": TEXT,
    "page": {"type": ["integer", "null"]},
    "heading": STRINGS,
    "start": WHOLE,
    "end": WHOLE,
    "score": {"type": "number"},
    "text": TEXT,
}

RESULTS = _some({"results": {"type": "array", "items": shape(_RESULT)}}, _NOTES)
CHUNKS = _some({"hits": {"type": "array", "items": shape(_HIT)}}, _NOTES)
DOCUMENT = shape({**_RESULT, "text": TEXT, "metadata": OBJECT})
RANGE = DOCUMENT
INDEXES = shape(
    {
        "indexes": {
            "type": "array",
            "items": shape({"name": TEXT, "documents": WHOLE, "chunks": WHOLE, "model": TEXT}),
        }
    }
)
ADDED = shape({"job": TEXT})
JOB = shape(
    {
        "job": TEXT,
        "index": TEXT,
        "status": TEXT,
        "counts": OBJECT,
        "error": {"type": ["string", "null"]},
    }
)
