"""What LibreChat asks of `librechat.py`, and what the OpenAPI document says of it."""

from pydantic import BaseModel, Field

from embedserve.api.schema_parts import DETAIL_ERROR, STRINGS, TEXT, answers, shape

MAX_FILES = 1000
"""Of one call."""


class FileQuery(BaseModel):
    """A question to one file."""

    query: str
    file_id: str
    k: int = Field(default=4, ge=1, le=1000)
    entity_id: str | None = None


class FilesQuery(BaseModel):
    """A question to several files."""

    query: str
    file_ids: list[str] = Field(min_length=1, max_length=MAX_FILES)
    k: int = Field(default=4, ge=1, le=1000)
    entity_id: str | None = None


class FileFields(BaseModel):
    """What comes with a file."""

    file_id: str = Field(min_length=1, max_length=200)
    entity_id: str | None = Field(default=None, max_length=200)


ERRORS = answers(None, "400 401 404 413 503", DETAIL_ERROR)
FORM = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": shape({"file": {"type": "string", "format": "binary"}, "file_id": TEXT})
            }
        },
    }
}
IDS_BODY = {"requestBody": {"required": True, "content": {"application/json": {"schema": STRINGS}}}}
