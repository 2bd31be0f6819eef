"""The section on search of docs/performance.md: tables between two markers."""

from collections.abc import Callable
from pathlib import Path

from scripts.search_report.figures import RESULTS, Report, Size, read_report

BEGIN = "<!-- what scripts/search_bench found: begin -->"
END = "<!-- what scripts/search_bench found: end -->"
P50_MS, P99_MS, RATE, TIMES, RECALL = 12, 40, 100, 3, 0.995
"""What was asked for, with 100,000 chunks."""
TARGET_TEXTS = 100_000
MIB = 1024 * 1024

WORDS = """\
`scripts/search_bench --models HOME --home FOLDER --chunks 10000 --chunks 100000` makes this part: a
server with its defaults, questions of SciFact, SQuAD and chunking_evaluation, none asked twice for
one figure, `k` 5 in passages, over HTTP from a process of its own on the same cores. A filter is of
metadata, and had been asked before: after a write the first one looks at every document."""

HOME_WORDS = """\
**The index.** Chunks are real text cut by the product (SciFact, SQuAD, PowerShell's documentation
without its near-equal versions, the Rust book, chunking_evaluation), and beyond them *variants*:
texts of 400 sentences drawn at random from one source. They went through the catalog, the full text
and the index worker as ingested ones do. Vectors of {embedded} texts are the engine's. The others
are synthetic: 20 to 80 % of the way from a real vector of the same document (of any where it has
none) to one of the ten real ones nearest to it, with noise of .02 in each dimension. They are about
as hard to search as real ones (`search_report/vectors.py`); what questions find by meaning among
them is not judged here."""

STAGES = """\
Where the time of a hybrid search goes, mean in milliseconds. Words are looked up while the question
is embedded, and `embed` is what that took beyond it; `dense` is Chroma and the catalog."""


def search_part(results: Path = RESULTS) -> str:
    """Return the section between its markers, as it was measured last."""
    made = section(read_report(results)) if results.exists() else "Not measured yet."
    return f"{BEGIN}\n{made}\n{END}"


def section(report: Report) -> str:
    """Return what stands between the markers."""
    sizes = report.sizes
    names = [_name(size) for size in sizes]
    parts = [
        f"Measured on {report.date}: {report.machine}; {report.model}. {_load(sizes)}",
        WORDS,
        HOME_WORDS.format(embedded=f"{max(size.embedded for size in sizes):,}"),
        *targets(sizes),
        _table(["", *names], _rows(sizes)),
        STAGES,
        _table(["", *names], _stage_rows(sizes)),
    ]
    return "\n\n".join(parts)


def targets(sizes: list[Size]) -> list[str]:
    """Return the table of what was asked for, where that size was measured."""
    found = [size for size in sizes if size.texts == TARGET_TEXTS and size.latency_ms]
    if not found:
        return []
    [size] = found
    hybrid = size.latency_ms["hybrid"]
    rows = [
        _target("hybrid, p50", hybrid["p50"], P50_MS, "ms", is_most=True),
        _target("hybrid, p99", hybrid["p99"], P99_MS, "ms", is_most=True),
        _target("16 clients", size.queries_per_s["16"], RATE, "queries/s", is_most=False),
    ]
    for kind in ("filter, 1 %", "filter, 50 %"):
        ratio = size.latency_ms[kind]["p50"] / hybrid["p50"]
        rows.append(_target(f"{kind}, of hybrid's p50", ratio, TIMES, "times", is_most=True))
    rows.append(_target("recall of the dense leg", size.recall, RECALL, "", is_most=False))
    return [f"With {TARGET_TEXTS:,} chunks:", _table(["", "measured", "target", ""], rows)]


def put_section(page: str, made: str) -> str:
    """Return the page with the section put between its markers."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise SystemExit("docs/performance.md has lost the markers of its section on search.")
    return f"{before}{BEGIN}\n{made}\n{END}{after}"


def _target(words: str, value: float, limit: float, unit: str, *, is_most: bool) -> list[str]:
    is_reached = value <= limit if is_most else value >= limit
    sign = "at most" if is_most else "at least"
    digits = 4 if limit < 1 else 1
    told = "reached" if is_reached else "**missed**"
    return [words, f"{value:.{digits}f} {unit}".strip(), f"{sign} {limit} {unit}".strip(), told]


def _rows(sizes: list[Size]) -> list[list[str]]:
    def row(words: str, cell: Callable[[Size], str]) -> list[str]:
        return [words, *(cell(size) for size in sizes)]

    def latency(kind: str) -> Callable[[Size], str]:
        return lambda size: _pair(size.latency_ms.get(kind))

    def rate(clients: str) -> Callable[[Size], str]:
        return lambda size: f"{size.queries_per_s[clients]:.0f} ({_pair(size.loaded_ms[clients])})"

    def memory(part: str) -> Callable[[Size], str]:
        return lambda size: f"{size.memory_bytes[part] / MIB:.0f} MiB"

    return [
        row("documents", lambda size: f"{size.documents:,}"),
        row("of the chunks, variants", lambda size: f"{size.variants:,}"),
        *(row(f"{kind}, p50 / p99", latency(kind)) for kind in sizes[0].latency_ms),
        *(row(f"{n} clients, queries/s (p50 / p99)", rate(n)) for n in sizes[0].queries_per_s),
        *(row(f"memory, {part}", memory(part)) for part in sizes[0].memory_bytes),
        row("recall at 100", lambda size: f"{size.recall:.4f}"),
    ]


def _stage_rows(sizes: list[Size]) -> list[list[str]]:
    stages = sizes[0].stages_ms.get("hybrid", {})
    return [
        [stage, *(f"{size.stages_ms['hybrid'].get(stage, 0):.1f}" for size in sizes)]
        for stage in stages
    ]


def _load(sizes: list[Size]) -> str:
    """Tell what else ran; the server's own time counts to it until it has ended."""
    told = [f"{size.load} at {_name(size)}" for size in sizes if size.load]
    return f"Load average before and after: {'; '.join(told)}." if told else ""


def _name(size: Size) -> str:
    return f"{size.texts:,} chunks"


def _pair(found: dict[str, float] | None) -> str:
    return f"{found['p50']:.1f} / {found['p99']:.1f} ms" if found else ""


def _table(head: list[str], rows: list[list[str]]) -> str:
    first, *others = [f"| {' | '.join(line)} |" for line in (head, *rows)]
    return "\n".join([first, "|---" * len(head) + "|", *others])
