"""The table of docs/clients.md: made from the results, between two markers."""

import json
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path

BEGIN = "<!-- what scripts/clients found: begin -->"
END = "<!-- what scripts/clients found: end -->"


@dataclass(frozen=True)
class Row:
    """One check of one client."""

    client: str
    version: str
    what: str
    problem: str
    """Empty where it went as it should."""


@dataclass(frozen=True)
class Report:
    """One run."""

    date: str
    embedserve: str
    left_out: list[str]
    """What was not run, and why."""
    rows: list[Row]


def read_report(path: Path) -> Report:
    """Read what `write_report` wrote."""
    content = json.loads(path.read_text(encoding="utf-8"))
    return Report(**{**content, "rows": [Row(**row) for row in content["rows"]]})


def write_report(report: Report, path: Path) -> None:
    """Keep a report as JSON."""
    text = json.dumps(asdict(report), indent=1, ensure_ascii=False)
    path.write_text(text + "\n", encoding="utf-8")


def section(report: Report) -> str:
    """Return what stands between the markers."""
    lines = [
        f"{report.date}, embedserve {report.embedserve}. Each check that gives vectors compares "
        "them with a plain call, to the last bit.",
        "",
        "| Client | Version | Checked | Result |",
        "|---|---|---|---|",
    ]
    for (client, version), group in groupby(report.rows, key=lambda row: (row.client, row.version)):
        rows = list(group)
        lines.append(f"| {client} | {version} | {_checked(rows)} | {_result(rows)} |")
    lines += [f"\nNot run: {words}" for words in report.left_out]
    return "\n".join(lines)


def _checked(rows: list[Row]) -> str:
    return _cell("; ".join(row.what for row in rows))


def _result(rows: list[Row]) -> str:
    failed = [row for row in rows if row.problem]
    if not failed:
        return f"all {len(rows)} pass"
    words = [_cell(f"{row.what}: {row.problem}") for row in failed]
    return f"{len(rows) - len(failed)} of {len(rows)} pass. " + "; ".join(words)


def put_section(page: str, made: str) -> str:
    """Return the page with the section put between its markers."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{made}\n{END}{after}"


def section_of(page: str) -> str:
    """Return what stands between the markers now."""
    return page.partition(BEGIN)[2].partition(END)[0].strip()


def _cell(text: str) -> str:
    # A line break or a bar would end the cell.
    return " ".join(text.replace("|", "/").split())
