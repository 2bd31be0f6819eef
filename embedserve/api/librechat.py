"""The dialect of LibreChat's rag_api, below `/librechat`: files of users, each for its owner.

All files lie in one index; who owns one is in its metadata. Distances are made of scores, which
mean the same for every model, so that the client's default cut parts right answers from noise.
"""

import asyncio
import json
import math
from contextlib import ExitStack
from functools import partial
from pathlib import PurePosixPath
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response

from embedserve.api.body import check_model, describe_body, read_list, read_model
from embedserve.api.librechat_access import Caller, LibreChatAccess
from embedserve.api.librechat_schemas import (
    ERRORS,
    FORM,
    IDS_BODY,
    FileFields,
    FileQuery,
    FilesQuery,
)
from embedserve.api.replies import json_reply, services
from embedserve.api.schema_parts import DETAIL_ERROR, STRINGS, TEXT, answers, given, shape
from embedserve.api.uploads import Form, Receive, read_form
from embedserve.errors import (
    DocumentNotFoundError,
    IndexNotFoundError,
    InvalidRequestError,
    NotFoundError,
)
from embedserve.services.documents import Upload
from embedserve.services.search_request import Hit, SearchRequest
from embedserve.types import Filter, Job, ListedDocument

router = APIRouter(prefix="/librechat", tags=["librechat"])

RELEVANCE_POWER = 1 / 3
"""LibreChat cuts at a relevance of .45, by default. That is a score of .09 then, above which 92 %
of right answers to SQuAD's questions are and 1 % of what another file has (docs/decisions.md)."""
UNKNOWN_TYPES = ("unsupported",)
"""Codes of files that LibreChat is told of as of no known type, which fails the upload there."""
_OWN = ("file_id", "user_id", "uploader")


def _caller(request: Request) -> Caller:
    """Return who asks; raise AccessError, and NotFoundError where LibreChat is not served."""
    access: LibreChatAccess | None = request.app.state.librechat
    if access is None:
        raise NotFoundError(
            "LibreChat is not served here. Set EMBEDSERVE_LIBRECHAT_SECRET to its JWT_SECRET."
        )
    user = access.user(request.headers.get("authorization", ""))
    return Caller(services(request), access.index, user)


@router.get("/health", responses={200: given("It serves.", shape({"status": TEXT}))})
async def health() -> Response:
    """Answer LibreChat's probe."""
    return json_reply({"status": "UP"})


@router.post("/embed", openapi_extra=FORM, responses=ERRORS)
@router.post("/embed-upload", openapi_extra=FORM, responses=ERRORS)
async def embed(request: Request) -> Response:
    """Take a file and make it searchable, for LibreChat."""
    caller = await asyncio.to_thread(_caller, request)
    await asyncio.to_thread(caller.make_index)
    with ExitStack() as stack:
        receive = partial(caller.services.documents.receive, caller.index)
        upload, form = await _received(request, caller, receive, stack)
        fields = check_model(form.fields, FileFields)
        filename, owner = upload.name, fields.entity_id or caller.user
        upload.name = f"{owner}/{fields.file_id}/{filename}"
        upload.metadata = {
            **_storage(form),
            **dict(zip(_OWN, (fields.file_id, owner, caller.user), strict=True)),
        }
        accept = caller.services.documents.accept
        job = await asyncio.to_thread(accept, caller.index, [upload])
    document = await _ended(caller, job, upload.name)
    problem = document.problem
    if problem and problem.code not in UNKNOWN_TYPES:
        raise InvalidRequestError(f"{problem.message} {problem.hint}".strip())
    done = "The file is still being read." if document.is_pending else "The file can be searched."
    return json_reply(
        {
            "status": problem is None,
            "message": problem.message if problem else done,
            "file_id": fields.file_id,
            "filename": filename,
            "known_type": problem is None,
        }
    )


async def _received(
    request: Request, caller: Caller, receive: Receive, stack: ExitStack
) -> tuple[Upload, Form]:
    """Return the one file of a form, and the form."""
    form = await read_form(request, caller.services.documents, receive, stack)
    if len(form.files) != 1:
        raise InvalidRequestError("Send one file as `file`, with its `file_id`.")
    return form.files[0], form


def _storage(form: Form) -> dict[str, Any]:
    """Return what LibreChat notes of where it keeps the file: plain values alone."""
    try:
        noted = json.loads(form.fields.get("storage_metadata") or "{}")
    except ValueError as error:
        raise InvalidRequestError("`storage_metadata` is not valid JSON.") from error
    plain = noted.items() if isinstance(noted, dict) else ()
    return {key: value for key, value in plain if isinstance(value, str | int | float | None)}


async def _ended(caller: Caller, job: Job, path: str) -> ListedDocument:
    """Wait for a file's job, as long as the settings allow, and return what became of the file."""
    documents = caller.services.documents
    ended = asyncio.wrap_future(caller.services.ingestion.ended(job.id))
    await asyncio.wait([ended], timeout=documents.limits.wait_s)
    return await asyncio.to_thread(documents.get_sent, caller.index, path)


@router.post(
    "/text", openapi_extra=FORM, responses={**ERRORS, **answers(None, "422", DETAIL_ERROR)}
)
async def text(request: Request) -> Response:
    """Return the text of a file, which is not kept, for LibreChat."""
    caller = await asyncio.to_thread(_caller, request)
    with ExitStack() as stack:
        receive = caller.services.extraction.receive
        upload, form = await _received(request, caller, receive, stack)
        extraction = await asyncio.to_thread(caller.services.extraction.read, upload)
    return json_reply(
        {
            "text": extraction.text,
            "file_id": form.fields.get("file_id", ""),
            "filename": upload.name,
            "known_type": True,
        }
    )


@router.post("/query", openapi_extra=describe_body(FileQuery), responses=ERRORS)
async def query(request: Request) -> Response:
    """Find the passages of one file that answer a question, for LibreChat."""
    caller = await asyncio.to_thread(_caller, request)
    body = await read_model(request, FileQuery)
    wanted = caller.may_read([body.file_id], body.entity_id)
    return json_reply(await _found(caller, body.query, wanted, body.k))


@router.post("/query_multiple", openapi_extra=describe_body(FilesQuery), responses=ERRORS)
async def query_multiple(request: Request) -> Response:
    """Find the passages of several files that answer a question, for LibreChat."""
    caller = await asyncio.to_thread(_caller, request)
    body = await read_model(request, FilesQuery)
    found = await _found(caller, body.query, caller.may_read(body.file_ids, body.entity_id), body.k)
    if not found:
        raise DocumentNotFoundError("No documents found for the given query")
    return json_reply(found)


async def _found(caller: Caller, question: str, wanted: Filter, k: int) -> list[list[Any]]:
    asked = SearchRequest((question,), k=k, filter=wanted)
    try:
        result = await caller.services.search.search(caller.index, asked)
    except IndexNotFoundError:
        return []
    return [[_shown(hit), distance_of(hit.score)] for hit in result.hits]


def distance_of(score: float) -> float:
    """Return the distance, 0..1, of a hit that answers with a chance of `score`."""
    return round(1 - math.pow(score, RELEVANCE_POWER), 6)


def _shown(hit: Hit) -> dict[str, Any]:
    chunk = hit.chunk
    told = {**json.loads(chunk.metadata), "digest": chunk.sha256, **_place(chunk.path)}
    if chunk.page is not None:
        told["page"] = chunk.page
    return {"page_content": hit.text, "metadata": told, "type": "Document"}


def _place(path: str) -> dict[str, str]:
    name = PurePosixPath(path).name
    return {"source": name, "filename": name}


@router.get("/ids", responses={200: given("Ids of files.", STRINGS), **ERRORS})
def ids(request: Request) -> Response:
    """List the files of the user, for LibreChat."""
    caller = _caller(request)
    found = (json.loads(one.metadata)["file_id"] for one in caller.documents(caller.every()))
    return json_reply(sorted(set(found)))


@router.get("/documents", responses=ERRORS)
def documents(request: Request, ids: Annotated[list[str], Query(min_length=1)]) -> Response:
    """Return the texts of some files, for LibreChat."""
    caller = _caller(request)
    found = {one: _texts(caller, one) for one in dict.fromkeys(ids)}
    return json_reply([text for texts in found.values() for text in texts])


@router.get("/documents/{file_id}/context", responses=ERRORS)
def context(request: Request, file_id: str) -> Response:
    """Return the whole text of a file, for LibreChat."""
    texts = _texts(_caller(request), file_id)
    return json_reply("\n\n".join(one["page_content"] for one in texts))


def _texts(caller: Caller, file_id: str) -> list[dict[str, Any]]:
    """Return the text of a file; raise DocumentNotFoundError where it is not the caller's."""
    found = caller.documents(caller.may_read([file_id]))
    readable = [one for one in found if one.id is not None and not one.problem]
    if not readable:
        raise DocumentNotFoundError(f"There is no file `{file_id[:100]}`, or it has no text.")
    pages = caller.services.pages
    texts = []
    for one in readable:
        head = pages.document(one.id or 0)
        told = {**json.loads(one.metadata), "digest": one.sha256, **_place(one.path)}
        whole = pages.read(head, max_chars=max(1, head.chars))
        texts.append({"page_content": whole.text, "metadata": told})
    return texts


@router.delete("/documents", openapi_extra=IDS_BODY, responses=ERRORS)
async def delete_documents(request: Request) -> Response:
    """Delete files of the user, for LibreChat."""
    caller = await asyncio.to_thread(_caller, request)
    file_ids = await read_list(request)
    wanted = caller.may_read(file_ids)
    delete = caller.services.documents.delete_matching
    try:
        deleted = (await asyncio.to_thread(delete, caller.index, wanted)).documents
    except IndexNotFoundError:
        deleted = 0
    if not deleted:
        raise DocumentNotFoundError("One or more IDs not found")
    return json_reply({"message": f"Documents for {len(file_ids)} files deleted successfully"})
