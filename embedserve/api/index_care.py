"""Our own dialect: indexes are checked, rebuilt and given room. Shapes: docs/api.md.

What takes long is answered line by line (JSON, one object a line); the last line is the result, or
`{"error"}` when it failed on the way.
"""

from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import Any, TypeVar

import orjson
from fastapi import APIRouter, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, ConfigDict, Field

from embedserve.api.body import describe_body, read_body, read_model
from embedserve.api.replies import services
from embedserve.errors import EmbedserveError
from embedserve.services.index_check import CheckReport, Progress
from embedserve.services.rebuild import RebuildProgress, VacuumProgress

router = APIRouter(tags=["indexes"])

T = TypeVar("T")
Line = dict[str, Any]


class CheckBody(BaseModel):
    """What to do about faults."""

    model_config = ConfigDict(extra="forbid", strict=True)

    repair: bool = Field(default=False, description="Put right what can be put right.")


@router.post("/indexes/{name}/check", openapi_extra=describe_body(CheckBody, is_required=False))
async def check(request: Request, name: str) -> Response:
    """Compare catalog and vector index, and repair them where that is asked for."""
    is_empty = not (await read_body(request)).strip()
    body = CheckBody() if is_empty else await read_model(request, CheckBody)
    checks = services(request).checks
    steps = await run_in_threadpool(checks.run, name, repairs=body.repair)
    return stream_lines(steps, _check_line)


@router.post("/indexes/{name}/rebuild")
def rebuild(request: Request, name: str) -> Response:
    """Build a fresh generation of the vector index beside the one that serves, and switch."""
    return stream_lines(services(request).rebuilds.rebuild(name), _rebuild_line)


@router.post("/vacuum")
def vacuum(request: Request) -> Response:
    """Delete vectors that no chunk of any index has, and give free space back to the system."""
    return stream_lines(services(request).rebuilds.vacuum(), _vacuum_line)


def stream_lines(steps: Iterator[T], to_line: Callable[[T], Line]) -> Response:
    """Return steps as lines of JSON, while they are taken."""

    def lines() -> Iterator[bytes]:
        try:
            for step in steps:
                yield orjson.dumps(to_line(step)) + b"\n"
        except EmbedserveError as error:
            yield orjson.dumps({"error": error.message}) + b"\n"

    return StreamingResponse(lines(), media_type="application/x-ndjson")


def _check_line(step: Progress | CheckReport) -> Line:
    if isinstance(step, Progress):
        return {"status": step.step, "done": step.done}
    status = "faulty" if step.faults else "repaired" if step.repaired else "ok"
    return {"status": status, **asdict(step)}


def _rebuild_line(step: RebuildProgress) -> Line:
    status = "success" if step.is_serving else "building"
    return {"status": status, "done": step.done, "total": step.total}


def _vacuum_line(step: VacuumProgress) -> Line:
    line = asdict(step)
    return {"status": "success" if line.pop("is_done") else "cleaning", **line}
