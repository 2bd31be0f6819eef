"""The figures of one run, and the file that keeps them. Measures nothing and writes no prose."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

RESULTS = Path(__file__).parent / "results.json"
"""Those of the last run, kept with the page that they are in."""


@dataclass
class Size:
    """What was measured on an index of one size."""

    chunks: int
    texts: int
    """Distinct ones."""
    documents: int
    variants: int
    """Of the texts, those of recombined sentences."""
    embedded: int
    """Of the texts, those whose vector is the engine's."""
    latency_ms: dict[str, dict[str, float]] = field(default_factory=dict)
    """p50 and p99 of one client, by kind of search."""
    stages_ms: dict[str, dict[str, float]] = field(default_factory=dict)
    """Mean time of each stage, by kind of search."""
    queries_per_s: dict[str, float] = field(default_factory=dict)
    """By number of clients."""
    loaded_ms: dict[str, dict[str, float]] = field(default_factory=dict)
    """p50 and p99 by number of clients."""
    memory_bytes: dict[str, int] = field(default_factory=dict)
    recall: float = 0.0
    """Of the dense leg against the exact one, at 100 candidates."""
    load: str = ""
    """Average number of runnable processes before and after."""


@dataclass(frozen=True)
class Report:
    """One run."""

    date: str
    machine: str
    model: str
    sizes: list[Size]

    def write(self, path: Path) -> None:
        """Keep the figures as JSON."""
        path.write_text(json.dumps(asdict(self), indent=1) + "\n", encoding="utf-8")


def read_report(path: Path) -> Report:
    """Read what `Report.write` wrote."""
    if not path.exists():
        raise SystemExit(f"`{path}` is not there: nothing was measured yet, leave `--again` out.")
    content = json.loads(path.read_text(encoding="utf-8"))
    return Report(**{**content, "sizes": [Size(**size) for size in content["sizes"]]})
