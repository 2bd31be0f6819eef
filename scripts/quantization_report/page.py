"""The page from the figures: tables, and the sentences that depend on them."""

from collections.abc import Iterable, Sequence
from textwrap import fill

from embedserve.models.recipes import RECIPES
from scripts.quantization_report import prose
from scripts.quantization_report.figures import BASE, LENGTHS, MINILM, Report, Row, Shape

MB = 1e6
"""Bytes; memory and files in the same unit."""
TIMES, NOTHING = "\N{MULTIPLICATION SIGN}", "\N{EN DASH}"
TARGET_RATIO, TARGET_NDCG_LOSS, TARGET_SERVER_MB = 1.4, 0.003, 500

LARGE = Shape("BERT-large", layers=24, hidden=1024, vocabulary=30_522)
LARGE_MULTILINGUAL = Shape("XLM-R large", 24, 1024, vocabulary=250_002, positions=8_192)
EXAMPLES = {
    "BERT-large": "bge-large, mxbai-embed-large",
    "XLM-R large": "bge-m3, snowflake-arctic-embed2",
}


def page(report: Report) -> str:
    """Return the whole page as Markdown."""
    cores = report.cores
    parts = [
        "# Quantization: what each recipe keeps, and what it brings",
        prose.MADE_BY,
        prose.INTRODUCTION,
        "## The default on this machine",
        default_words(report),
        "## The recipes",
        *recipe_words(),
        gates_table(),
        "## How to read the figures",
        prose.READING.format(
            texts=_texts(report),
            cores=cores,
            rounds=report.rounds,
            seconds=report.seconds,
            empty=report.empty_bytes / MB,
        ),
        machine_words(report),
        "## all-minilm: fidelity",
        fidelity_table(report),
        "## all-minilm: speed, size and memory",
        speed_table(report),
        prose.RIVALS.format(cores=cores),
    ]
    if report.base:
        parameters = (BASE.table_parameters + BASE.layer_parameters) / 1e6
        parts += [
            "## A model of BERT-base's size",
            prose.BASE.format(parameters=parameters, cores=cores),
            base_table(report),
            "## What to expect of other sizes",
            prose.ARITHMETIC,
            arithmetic_table(report),
        ]
    parts += ["## What was tried and lost", prose.LOST]
    return "\n\n".join(parts) + "\n"


def default_words(report: Report) -> str:
    """Say what a pull installs here, why, and how it compares."""
    row = report.default()
    if row is None:
        return "Nothing that was measured passes its gate."
    lines = [
        f"`{row.recipe}` on {row.engine} ({row.method}): the fastest on mixed lengths of what "
        "passes its gate.",
        "",
        "| | measured | target |",
        "|---|---|---|",
        f"| speed on mixed lengths, against the fastest use of optimum's int8 | "
        f"{report.ratio(row, 'mixed'):.2f}{TIMES} | at least {TARGET_RATIO}{TIMES} |",
    ]
    if row.ndcg10 is not None:
        true = [r.ndcg10 for r in report.ways if r.recipe == "fp32" and r.ndcg10 is not None]
        against = f", against fp32's {true[0]:.4f}" if true else ""
        change = f" ({row.ndcg10 - true[0]:+.4f})" if true else ""
        lines.append(
            f"| SciFact nDCG@10{against} | {row.ndcg10:.4f}{change} "
            f"| at most {TARGET_NDCG_LOSS} less |"
        )
    if report.server_bytes is not None:
        lines.append(
            f"| resident memory of `embedserve serve` with it | {report.server_bytes / MB:.0f} MB "
            f"| at most {TARGET_SERVER_MB} MB |"
        )
    return "\n".join(lines)


def recipe_words() -> list[str]:
    """Return a paragraph for each recipe."""
    return [fill(f"**`{name}`**: {prose.RECIPES[name]}", 100) for name in RECIPES]


def gates_table() -> str:
    """List what each recipe has to reach."""
    rows = [
        (
            f"`{recipe.name}`",
            {"cpu": "CPU", "cuda": "GPU", "tensorrt": "GPU", "any": "CPU, GPU"}[recipe.device],
            f"{recipe.gate.cosine_mean}",
            f"{recipe.gate.cosine_min}",
            f"{recipe.gate.top10_overlap}" if recipe.gate.top10_overlap else NOTHING,
        )
        for recipe in RECIPES.values()
    ]
    return table(("gate of", "device", "mean cosine ≥", "lowest ≥", "top-10 ≥"), rows)


def machine_words(report: Report) -> str:
    """Say where and when this was measured."""
    return (
        f"Measured on {report.date}: {report.cpu}; {report.cores} cores; {report.engines}; load "
        f"average {report.load} before and after."
    )


def fidelity_table(report: Report) -> str:
    """Compare every way with fp32."""
    rows = []
    for row in (*report.ways, *report.rivals):
        if row.card is None:
            continue
        card = row.card
        rows.append(
            (
                *_names(row),
                f"{card.cosine_mean:.5f} / {card.cosine_min:.5f}",
                f"{card.top1_agreement:.3f}",
                f"{card.top10_overlap:.3f}",
                NOTHING if row.ndcg10 is None else f"{row.ndcg10:.4f}",
                "yes" if row.is_batch_invariant else "**no**",
                _verdict(row),
            )
        )
    head = ("engine", "recipe", "way", "cosine mean / lowest", "top-1", "top-10", "nDCG@10")
    return table((*head, "batch-invariant", "gate"), rows)


def speed_table(report: Report) -> str:
    """List speed, file and memory of every way."""
    rows = [
        (
            *_names(row),
            *(thousands(row.speed(length)) for length in LENGTHS),
            f"{report.ratio(row, 'mixed'):.2f}{TIMES}",
            f"{row.size_bytes / MB:.1f}",
            f"{row.resident_bytes / MB:.0f}",
        )
        for row in (*report.ways, *report.rivals)
    ]
    lengths = ("16 tokens", "128", "256", "mixed")
    last = ("mixed, against optimum's best", "file, MB", "memory, MB")
    return table(("engine", "recipe", "way", *lengths, *last), rows)


def base_table(report: Report) -> str:
    """List file, memory and speed of every way with the larger model."""
    rows = [
        (
            *_names(row),
            f"{row.size_bytes / MB:.0f}",
            f"{row.resident_bytes / MB:.0f}",
            thousands(row.speed("128")),
        )
        for row in report.base
    ]
    return table(("engine", "recipe", "way", "file, MB", "memory, MB", "tokens/s at 128"), rows)


def arithmetic_table(report: Report) -> str:
    """Work out what larger models need, from the ways that were measured with both sizes."""
    chosen = _first_faithful(report)
    rows = []
    for shape in (MINILM, BASE, LARGE, LARGE_MULTILINGUAL):
        parameters = (shape.table_parameters + shape.layer_parameters) / 1e6
        name = f"{parameters:.0f}M ({EXAMPLES.get(shape.name, shape.name)})"
        cells = []
        for small, large in chosen:
            size = solve(shape, small.size_bytes, large.size_bytes)
            # By file, not by parameter: two models of one vocabulary do not tell what tables hold.
            growth = (large.resident_bytes - small.resident_bytes) / (
                large.size_bytes - small.size_bytes
            )
            held = large.resident_bytes + growth * (size - large.size_bytes)
            speed = large.speed("128") * BASE.operations(128) / shape.operations(128)
            speed = small.speed("128") if shape is MINILM else speed
            cells.append(f"{size / MB:.0f} / {held / MB:.0f} / {thousands(speed)}")
        rows.append((name, *cells))
    names = [f"`{small.recipe}`, {small.engine}" for small, _ in chosen]
    return "File in MB / memory in MB / tokens per second:\n\n" + table(
        ("parameters", *names), rows
    )


def solve(shape: Shape, minilm: float, base: float) -> float:
    """Return what `shape` needs if tables and layers cost the same by parameter everywhere."""
    a, b = MINILM.table_parameters, MINILM.layer_parameters
    c, d = BASE.table_parameters, BASE.layer_parameters
    determinant = a * d - b * c
    per_table = (minilm * d - b * base) / determinant
    per_layer = (a * base - minilm * c) / determinant
    return per_table * shape.table_parameters + per_layer * shape.layer_parameters


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    return "\n".join([*lines, *(f"| {' | '.join(cells)} |" for cells in rows)])


def thousands(speed: float) -> str:
    """Write tokens per second shortly."""
    return f"{speed / 1000:.1f}k"


def _names(row: Row) -> tuple[str, str, str]:
    return row.engine, f"`{row.recipe}`" if row.recipe else NOTHING, row.method


def _verdict(row: Row) -> str:
    if not row.recipe:
        return NOTHING
    figures = [failure.partition(" against")[0] for failure in row.failures]
    return f"fails: {', '.join(figures)}" if figures else "passes"


def _texts(report: Report) -> int:
    return next((row.card.texts for row in report.ways if row.card), 0)


def _first_faithful(report: Report) -> list[tuple[Row, Row]]:
    """Pair the first passing way of each recipe and engine with its like of the larger model."""
    found: dict[tuple[str, str], tuple[Row, Row]] = {}
    for small in report.ways:
        like = [r for r in report.base if _names(r) == _names(small)]
        if like and not small.failures and small.recipe != "int8-dynamic":
            found.setdefault((small.recipe, small.engine), (small, like[0]))
    return list(found.values())
