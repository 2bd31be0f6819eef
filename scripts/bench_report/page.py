"""The page from the figures: tables, and the sentences that depend on them."""

from collections.abc import Iterable, Sequence

from scripts.bench_report import prose
from scripts.bench_report.engine import GROUP_TOKENS, REQUEST_TEXTS
from scripts.bench_report.figures import LENGTHS, ROUTES, TARGETS, Report, Target
from scripts.bench_report.measure import (
    BULK_CLIENTS,
    BULK_TEXTS,
    BULK_TOKENS,
    QUERIES_PER_S,
    QUERY_CLIENTS,
    QUERY_TOKENS,
)
from scripts.search_report.page import search_part

NOTHING = "\N{EN DASH}"
_MS = 1000
QUIET = 0.05
"""Share of the machine that others may use without the page telling readers to look away."""


def page(report: Report) -> str:
    """Return the whole page as Markdown."""
    parts = [
        "# Performance",
        prose.MADE_BY,
        prose.INTRODUCTION,
        "## Targets",
        targets_table(report),
        machine_words(report),
        "## How it is measured",
        prose.COMMANDS,
        prose.READING.format(rounds=report.rounds, seconds=report.seconds, calls=report.calls),
        *speed_parts(report),
        *time_parts(report),
        "## Ingestion",
        prose.INGESTION,
        "## Search",
        search_part(),
        "## Beside others",
        prose.PEERS,
        *peer_parts(report),
        "## What was tried and lost",
        prose.LOST,
    ]
    return "\n\n".join(parts) + "\n"


def speed_parts(report: Report) -> list[str]:
    """Return the sections on rates and latencies."""
    http = prose.HTTP.format(
        clients=BULK_CLIENTS,
        texts=BULK_TEXTS,
        tokens=BULK_TOKENS,
        query=QUERY_TOKENS,
        rate=QUERIES_PER_S,
        folder=report.folder,
        chunks=report.median("chunks"),
    )
    return [
        "## The engine and its scheduler",
        prose.ENGINE.format(group=GROUP_TOKENS, request=REQUEST_TEXTS),
        engine_table(report),
        "## Over HTTP",
        http,
        http_table(report),
        "## The cache",
        prose.CACHE.format(query=QUERY_TOKENS),
        cache_table(report),
    ]


def time_parts(report: Report) -> list[str]:
    """Return the sections on what takes the time."""
    return [
        "## Requests without their vectors",
        prose.HOT,
        hot_table(report),
        "## Where the time goes",
        prose.TIME_OF_QUERY.format(query=QUERY_TOKENS),
        query_table(report),
        prose.TIME_OF_BULK.format(texts=BULK_TEXTS, tokens=BULK_TOKENS),
        bulk_table(report),
        "## The machine's roof",
        prose.ROOF,
        roof_table(report),
    ]


def targets_table(report: Report) -> str:
    """List every target with its figure."""
    return table(
        ("", "measured", "target", ""),
        (
            (
                target.words,
                _number(target.value(report), target.unit),
                f"{'at most' if target.is_most else 'at least'} {target.limit:g} {target.unit}",
                "reached" if target.is_reached(report) else "**missed**",
            )
            for target in TARGETS
        ),
    )


def machine_words(report: Report) -> str:
    """Say where and when this was measured, and whether others disturbed it."""
    words = (
        f"Measured on {report.date} with `{report.command}`: {report.cpu}; {report.cores} cores, "
        f"an engine worker each; {report.engines}; {report.model}; load average {report.load} "
        f"before and after. Other processes used {100 * report.others:.0f} % of the machine."
    )
    return f"{words} {prose.NOT_QUIET}" if report.others > QUIET else words


def engine_table(report: Report) -> str:
    """Compare the scheduler with the bare engine."""
    rows = [
        (
            "8 to 250, mixed" if length == "mixed" else length,
            *(_tokens(report, f"{way} {length}") for way in ("bare", "scheduler")),
            f"{100 * report.ratio(f'scheduler {length}', f'bare {length}'):.1f} %",
            "at least 95 %",
        )
        for length in LENGTHS
    ]
    return table(("tokens of a text", "bare", "scheduler", "share", "target"), rows)


def http_table(report: Report) -> str:
    """List rates and latencies over HTTP."""

    def latency(name: str, words: str) -> list[tuple[str, ...]]:
        return [
            (f"{words}, {part}", _spread(report, f"{name} {part}", "ms"), "", _target(name, part))
            for part in ("p50", "p99")
        ]

    def rate(name: str, words: str, unit: str, base: str = "") -> tuple[str, ...]:
        against = f"{100 * report.ratio(name, base):.1f} % of {base}" if base else ""
        return words, _spread(report, name, unit), against, _target(name)

    rows = [
        rate("scheduler texts", f"scheduler at {BULK_TOKENS} tokens, for comparison", "texts/s"),
        rate("http bulk", "bulk", "texts/s", "scheduler texts"),
        rate("http short", f"{QUERY_CLIENTS} clients, a query each", "requests/s"),
        *latency("idle", "one query, idle"),
        *latency("beside bulk", "one query beside bulk"),
        rate("bulk beside queries", "that bulk", "texts/s", "http bulk"),
        rate("ingestion", "ingestion alone", "chunks/s"),
        rate("ingestion beside queries", "ingestion beside queries", "chunks/s", "ingestion"),
        *latency("beside ingestion", "one query beside ingestion"),
    ]
    head = ("", "median (lowest to highest)", "share", "target")
    return table(
        head, [(a, b, c.replace("scheduler texts", "the scheduler"), d) for a, b, c, d in rows]
    )


def hot_table(report: Report) -> str:
    """Compare the three applications."""
    rows = []
    for route in ROUTES:
        for count in sorted({1, route.most_texts}):
            name = f"{route.name} {count}"
            rows.append(
                (
                    route.name,
                    f"{count}",
                    *(f"{report.median(f'{kind} {name}'):.0f}" for kind in ("ours", "default")),
                    f"{report.ratio(f'default {name}', f'ours {name}'):.1f}",
                    f"{report.median(f'floor {name}'):.0f}",
                )
            )
    return table(("route", "texts", "here, µs", "FastAPI, µs", "ratio", "floor, µs"), rows)


def cache_table(report: Report) -> str:
    """Compare a text that is kept with new ones."""
    rows = [
        (
            words,
            _spread(report, f"{name} p50", "ms"),
            _spread(report, f"{name} p99", "ms"),
            _spread(report, f"{name} rate", "requests/s"),
        )
        for name, words in (("miss", "new text"), ("hit", "text that is kept"))
    ]
    clients = f"{QUERY_CLIENTS} clients"
    return table(("", "one client, p50", "one client, p99", clients), rows)


def query_table(report: Report) -> str:
    """Split the time of one query into its parts."""
    run, submit = (report.median(f"part {name}") for name in ("run_query", "submit_query"))
    floor, ours = (report.median(f"{kind} round trip p50") for kind in ("floor", "ours"))
    parts = [
        ("HTTP: client, system, web server", floor),
        ("request and answer: JSON, routing", ours - floor),
        ("tokenizing", report.median("part tokenize_query")),
        ("queue, and the hop to a worker and back", submit - run),
        ("the engine's run", run),
    ]
    return _parts_table(parts, report.median("idle p50"))


def bulk_table(report: Report) -> str:
    """Split a core's time for one bulk request into its parts."""
    route = f"{ROUTES[0].name} {BULK_TEXTS}"
    tokens = BULK_TEXTS * BULK_TOKENS
    core_ms = _MS * report.cores
    run = core_ms * tokens / report.median(f"bare {BULK_TOKENS}")
    scheduled = core_ms * tokens / report.median(f"scheduler {BULK_TOKENS}")
    floor = report.median(f"floor {route}") / _MS
    parts = [
        ("tokenizing", report.median("part tokenize_bulk")),
        ("queue and scheduler", scheduled - run),
        ("the engine's runs", run),
        ("request and answer: JSON, routing", report.median(f"ours {route}") / _MS - floor),
        ("HTTP: web server and system", floor),
    ]
    return _parts_table(parts, core_ms * BULK_TEXTS / report.median("http bulk"))


def roof_table(report: Report) -> str:
    """Say which share of the 8-bit limit the bare engine reaches."""
    if not report.has("roof"):
        return "Not measured: the engine that runs it is not installed here."
    rows = [
        (
            f"{tokens}",
            f"{report.operations(tokens) / 1e6:.1f} million",
            f"{report.median(f'bare {tokens}') * report.operations(tokens) / 1e9:.0f}",
            f"{100 * report.reached(tokens):.0f} %",
        )
        for tokens in (16, 128, 256)
    ]
    head = ("tokens of a text", "operations a token", "billion operations/s", "of the roof")
    roof = f"{report.median('roof') / 1e9:.0f} billion operations a second"
    return f"The roof: {roof}.\n\n{table(head, rows)}"


def peer_parts(report: Report) -> list[str]:
    """Show what was measured beside others, if anything was."""
    parts = []
    for peer in report.peers:
        parts += [f"### {peer.title}", peer.words, table(peer.head, peer.rows)]
    return parts or [prose.NO_PEERS]


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    return "\n".join([*lines, *(f"| {' | '.join(cells)} |" for cells in rows)])


def _parts_table(parts: Sequence[tuple[str, float]], whole: float) -> str:
    rest = whole - sum(value for _, value in parts)
    rows = [*parts, ("what is left", rest), ("**all**", whole)]
    cells = [(name, f"{value:.3g}", f"{100 * value / whole:.0f} %") for name, value in rows]
    return table(("part", "ms", "share"), cells)


def _tokens(report: Report, name: str) -> str:
    values = [f"{value / 1000:.1f}k" for value in (report.median(name), *_ends(report, name))]
    return "{} ({} to {})".format(*values)


def _spread(report: Report, name: str, unit: str) -> str:
    middle, *ends = (_digits(v, unit) for v in (report.median(name), *_ends(report, name)))
    return f"{middle} {unit} ({ends[0]} to {ends[1]})"


def _ends(report: Report, name: str) -> tuple[float, float]:
    return min(report.values[name]), max(report.values[name])


def _digits(value: float, unit: str) -> str:
    return f"{value:.2f}" if unit == "ms" else f"{value:,.0f}"


def _number(value: float, unit: str) -> str:
    return f"{value:.1f} {unit}"


def _target(name: str, part: str = "") -> str:
    wanted = f"{name} {part}".strip()
    found: list[Target] = [target for target in TARGETS if target.names[0] == wanted]
    if not found:
        return NOTHING
    return f"{'at most' if found[0].is_most else 'at least'} {found[0].limit:g} {found[0].unit}"
