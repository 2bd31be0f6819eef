"""Probes for supervisors: does the process live, and can it do its work?"""

from fastapi import APIRouter, Request, Response

from embedserve.api.replies import json_reply, services

router = APIRouter(tags=["health"])


@router.get("/health")
async def health() -> Response:
    """Answer as long as the process serves requests."""
    return json_reply({"status": "ok"})


@router.get("/ready")
def ready(request: Request) -> Response:
    """Answer 200 when every part works, else 503 with the reason."""
    parts = services(request).health.readiness()
    is_ready = all(state == "ok" for state in parts.values())
    status = "ready" if is_ready else "not ready"
    return json_reply({"status": status, "parts": parts}, status=200 if is_ready else 503)
