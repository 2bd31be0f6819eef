"""docs/clients.md says what scripts/clients found and names every client that the doctor knows."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

from embedserve.cli.recordings.calls import recordings
from scripts.clients_report.families import FAMILIES, HERE
from scripts.clients_report.page import (
    BEGIN,
    END,
    Report,
    Row,
    put_section,
    read_report,
    section,
    section_of,
    write_report,
)

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "clients.md"
RESULTS = ROOT / "scripts" / "clients_report" / "results.json"


def test_the_table_is_what_was_found() -> None:
    found = read_report(RESULTS)
    assert section_of(PAGE.read_text(encoding="utf-8")) == section(found).strip()
    checked = Counter(row.client for row in found.rows)
    assert len(checked) >= 12
    assert min(checked.values()) > 1
    assert {row.what for row in found.rows} >= {"unknown model", "64 texts, many scripts"}


def test_every_client_of_the_doctor_is_on_the_page() -> None:
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    for name, client in recordings().items():
        assert f"| {client.name} | `{name}` |" in lines


def test_every_version_is_pinned_exactly() -> None:
    for family in FAMILIES:
        for name in family.pins:
            assert (HERE / name).is_file()
            if name.endswith(".txt"):
                lines = (HERE / name).read_text(encoding="utf-8").split()
                assert lines
                assert all(line.count("==") == 1 for line in lines)
                # Clients of a server need no training stack.
                assert not any(line.startswith(("torch", "nvidia")) for line in lines)


def test_a_failure_is_shown_in_its_cell(tmp_path: Path) -> None:
    row = Row("a client", "1.0", "one text", "")
    bad = replace(row, what="two | texts", problem="a | b\nc")
    report = Report("2026-01-01", "0.1.0", ["something: no reason."], [row, bad])
    write_report(report, tmp_path / "results.json")
    assert read_report(tmp_path / "results.json") == report
    made = section(report)
    assert "1 of 2 pass. two / texts: a / b c" in made
    assert "Not run: something: no reason." in made
    page = put_section(f"before\n{BEGIN}\nold\n{END}\nafter\n", made)
    assert page.startswith("before\n")
    assert page.endswith("\nafter\n")
    assert section_of(page) == made.strip()
