"""Figures for Prometheus."""

from fastapi import APIRouter, Request, Response

from embedserve.api.replies import services

router = APIRouter(tags=["health"])


@router.get("/metrics")
def metrics(request: Request) -> Response:
    """Return counters and gauges in Prometheus' text format."""
    found = services(request).metrics
    return Response(found.page(), media_type=found.content_type)
