"""Bodies that carry documents, written to disk as they come."""

import asyncio
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial

from fastapi import Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import ClientDisconnect

from embedserve.api.body import read_model, read_object
from embedserve.api.multipart import Event, MultipartParser, PartBegins, PartBytes, boundary_of
from embedserve.errors import InvalidRequestError, TooLargeError
from embedserve.services.document_names import parse_metadata
from embedserve.services.documents import DocumentService, Upload

FIELD_BYTES = 1024 * 1024
"""Of a field that is no file."""
MAX_FIELDS = 100
PIECE_BYTES = 256 * 1024
"""What is gathered before it is written."""


class TextBody(BaseModel):
    """A document as text."""

    model_config = ConfigDict(extra="forbid", strict=True)

    text: str = Field(description="What the document says.")
    name: str | None = Field(
        default=None,
        description="What it is listed under; its ending says how the text is read (`.md`). "
        "Without it, a name that follows from the text.",
    )
    path: str | None = Field(default=None, description="The same as `name`.")
    title: str | None = Field(default=None, description="In front of what is embedded.")
    metadata: dict[str, object] | None = Field(default=None, description="Returned with hits.")


class TextsBody(BaseModel):
    """One text, or several as `documents`."""

    model_config = ConfigDict(extra="forbid", strict=True)

    documents: list[TextBody] = Field(description="Several at once.")


async def read_texts(
    request: Request, documents: DocumentService, index: str, stack: ExitStack
) -> list[Upload]:
    """Read documents from JSON."""
    value = await _read_either(request)
    documents.check_count(len(value))
    uploads = []
    for one in value:
        name = one.name or one.path
        upload = await asyncio.to_thread(documents.receive_text, index, one.text, name)
        stack.callback(upload.file.close)
        upload.title, upload.metadata = one.title or "", one.metadata
        uploads.append(upload)
    return uploads


async def _read_either(request: Request) -> list[TextBody]:
    """Read one document, or the list that `documents` holds."""
    value = await read_object(request)
    if "documents" in value:
        return (await read_model(request, TextsBody)).documents
    return [await read_model(request, TextBody)]


async def read_content(request: Request, documents: DocumentService, upload: Upload) -> None:
    """Write the body, which is one document, to its file."""
    async for part in _pieces(request, documents):
        await asyncio.to_thread(upload.file.write, part)


async def read_files(
    request: Request, documents: DocumentService, index: str, stack: ExitStack
) -> list[Upload]:
    """Write every file of a form to disk; its fields `title` and `metadata` are of all of them."""
    form = await read_form(
        request, documents, partial(documents.receive, index), stack, fields=("title", "metadata")
    )
    metadata = form.fields.get("metadata")
    for upload in form.files:
        upload.title = form.fields.get("title", "")
        upload.metadata = parse_metadata(metadata) if metadata else None
    return form.files


Receive = Callable[[str], Upload]
"""Begin to take a file of this name."""


@dataclass(frozen=True)
class Form:
    """A form that came whole."""

    files: list[Upload]
    fields: dict[str, str]


async def read_form(
    request: Request,
    documents: DocumentService,
    receive: Receive,
    stack: ExitStack,
    *,
    fields: Collection[str] = (),
) -> Form:
    """Write every file of a form to disk as it comes; closed with `stack`.

    Raises InvalidRequestError for a field that is none of `fields`; without these any may come.
    """
    parser = MultipartParser(boundary_of(request.headers.get("content-type", "")))
    form = _Incoming(documents, receive, stack, fields)
    async for piece in _pieces(request, documents):
        for event in parser.feed(piece):
            await form.take(event)
    parser.finish()
    return Form(form.files, {k: v.decode("utf-8", "replace") for k, v in form.fields.items()})


@dataclass
class _Incoming:
    """What has come of a form."""

    documents: DocumentService
    receive: Receive
    stack: ExitStack
    known: Collection[str]
    files: list[Upload] = field(default_factory=list)
    fields: dict[str, bytearray] = field(default_factory=dict)
    present: Upload | bytearray | None = None

    async def take(self, event: Event) -> None:
        if isinstance(event, PartBegins):
            await self._begin(event)
        elif isinstance(event, PartBytes):
            await self._write(event.content)
        else:
            self.present = None

    async def _begin(self, part: PartBegins) -> None:
        if part.filename is None:
            if self.known and part.name not in self.known:
                known = " and ".join(f"`{name}`" for name in self.known)
                raise InvalidRequestError(
                    f"The field `{part.name[:100]}` is not known: send files, and for all of them "
                    f"{known}."
                )
            if len(self.fields) >= MAX_FIELDS:
                raise TooLargeError(f"The form has more than {MAX_FIELDS} fields.")
            self.present = self.fields[part.name] = bytearray()
            return
        self.documents.check_count(len(self.files) + 1)
        upload = await asyncio.to_thread(self.receive, part.filename)
        self.stack.callback(upload.file.close)
        self.files.append(upload)
        self.present = upload

    async def _write(self, content: bytes) -> None:
        if isinstance(self.present, Upload):
            await asyncio.to_thread(self.present.file.write, content)
        elif self.present is not None:
            self.present += content
            if len(self.present) > FIELD_BYTES:
                raise TooLargeError(f"A field of the form is larger than {FIELD_BYTES} bytes.")


async def _pieces(request: Request, documents: DocumentService) -> AsyncIterator[bytes]:
    """Give the body in pieces that are worth a write; raise TooLargeError beyond the limit."""
    size, page = 0, bytearray()
    try:
        async for part in request.stream():
            size += len(part)
            documents.check_size(size)
            page += part
            if len(page) >= PIECE_BYTES:
                yield bytes(page)
                page.clear()
    except ClientDisconnect as error:
        raise InvalidRequestError("The client left before its document was whole.") from error
    if page:
        yield bytes(page)
