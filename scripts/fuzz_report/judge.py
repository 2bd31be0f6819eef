"""What the answers and the server say about it."""

import json
from collections import Counter
from dataclasses import dataclass, field

from scripts.fuzz_report.wire import Answer

MEMORY_BYTES = 48 * 1024 * 1024
"""By how much the resident memory may grow: what allocators keep of the largest bodies."""


@dataclass
class Report:
    """The figures of one run."""

    seed: int
    routes: int
    statuses: dict[str, dict[str, int]] = field(default_factory=dict)
    """By kind of request; `none` is a connection closed without an answer."""
    failures: list[str] = field(default_factory=list)
    slowest_s: float = 0.0
    resident_before_bytes: int = 0
    resident_after_bytes: int = 0
    seconds: float = 0.0

    @property
    def requests(self) -> int:
        """How many were sent."""
        return sum(sum(row.values()) for row in self.statuses.values())

    def as_json(self) -> str:
        """Return everything for scripts."""
        return json.dumps({**vars(self), "requests": self.requests}, indent=1) + "\n"


def judge(answers: list[Answer], report: Report) -> None:
    """Count the answers and note those that must not be."""
    counts: dict[str, Counter[str]] = {}
    for answer in answers:
        row = counts.setdefault(answer.request.kind, Counter())
        row[str(answer.status or "none")] += 1
        if reason := _fault(answer):
            report.failures.append(f"{reason}: {_shown(answer)}")
    report.statuses = {kind: dict(sorted(row.items())) for kind, row in sorted(counts.items())}
    report.slowest_s = round(max((answer.seconds for answer in answers), default=0), 2)


def _fault(answer: Answer) -> str:
    if answer.status == 500:
        return "status 500"
    if answer.is_late:
        return "no answer in time"
    if answer.status is None and answer.request.ending == "whole":
        return "closed without an answer"
    return ""


def judge_memory(report: Report) -> None:
    """Note when the server has kept more memory than it may."""
    grown = report.resident_after_bytes - report.resident_before_bytes
    if grown > MEMORY_BYTES:
        report.failures.append(f"resident memory grew by {grown / 1e6:.0f} MB")


def _shown(answer: Answer) -> str:
    sent = b"".join(answer.request.segments)
    return f"{answer.request.kind}, {len(sent)} bytes: {sent[:600]!r}"


def table(report: Report) -> str:
    """Return the figures for people."""
    lines = [
        f"{report.requests} requests to {report.routes} routes in {report.seconds:.0f} s, seed "
        f"{report.seed}; the slowest answer took {report.slowest_s} s",
        f"resident memory {report.resident_before_bytes / 1e6:.0f} MB before, "
        f"{report.resident_after_bytes / 1e6:.0f} MB after",
        "",
    ]
    for kind, row in report.statuses.items():
        shown = ", ".join(f"{count} x {status}" for status, count in row.items())
        lines.append(f"  {kind:<14} {shown}")
    return "\n".join(lines)
