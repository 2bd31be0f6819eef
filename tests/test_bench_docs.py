"""docs/performance.md is whole: every figure and target, and others beside ours."""

import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from scripts.bench_report import hot, page, peers
from scripts.bench_report.figures import LENGTHS, ROUTES, TARGETS, PeerTable, Report, read_report

PAGE = Path(__file__).parent.parent / "docs" / "performance.md"
LATENCIES = ("idle", "beside bulk", "beside ingestion", "miss", "hit")
ROUND_TRIPS = ("floor round trip", "ours round trip")


def report() -> Report:
    names = [f"{way} {length}" for way in ("bare", "scheduler") for length in LENGTHS]
    names += [f"{name} {part}" for name in (*LATENCIES, *ROUND_TRIPS) for part in ("p50", "p99")]
    names += ["http bulk", "http short", "scheduler texts", "bulk beside queries", "roof", "chunks"]
    names += ["ingestion", "ingestion beside queries", "miss rate", "hit rate"]
    names += [f"part {name}_{of}" for name in ("tokenize", "run", "submit") for of in ("query",)]
    names += ["part tokenize_bulk"]
    for route in ROUTES:
        names += [f"{kind} {route.name} {n}" for kind in hot.KINDS for n in {1, route.most_texts}]
    return Report(
        date="2026-01-01",
        cpu="a CPU",
        engines="an engine",
        model="a model",
        cores=2,
        load="0.0 and 0.0",
        others=0.01,
        rounds=3,
        seconds=1.0,
        calls=500,
        command="scripts/bench",
        folder="a folder",
        layers=6,
        width=384,
        values={name: [1.0, 4.0, 2.0] for name in names},
    )


def rows(text: str, title: str) -> list[list[str]]:
    """Return the cells of a section's table rows, heads left out."""
    [section] = [part for part in text.split("\n## ") if part.startswith(f"{title}\n")]
    lines = [*section.splitlines(), ""]
    kept = [
        line
        for line, next_line in pairwise(lines)
        if line.startswith("| ") and not next_line.startswith("|---")
    ]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in kept]


def test_the_page_is_whole_and_every_figure_of_it_was_measured() -> None:
    text = PAGE.read_text(encoding="utf-8")
    made = page.page(report())
    titles = [line for line in made.splitlines() if line.startswith("## ")]
    assert [line for line in text.splitlines() if line.startswith("## ")] == titles
    for title in (line.removeprefix("## ") for line in titles):
        wanted = [cells[0] for cells in rows(made, title)]
        found = rows(text, title)
        if title != "Beside others":
            assert [cells[0] for cells in found] == wanted, title
        for cells in found:
            assert any(sign.isdigit() for cell in cells[1:] for sign in cell), cells
    assert "nan" not in text


def test_the_page_has_every_target_beside_its_figure() -> None:
    found = rows(PAGE.read_text(encoding="utf-8"), "Targets")
    assert len(TARGETS) > 8
    assert [cells[0] for cells in found] == [target.words for target in TARGETS]
    for cells, target in zip(found, TARGETS, strict=True):
        measured = float(cells[1].split()[0])
        # What is shown is rounded to a tenth.
        if abs(measured - target.limit) > 0.1:
            is_reached = (measured < target.limit) == target.is_most
            assert cells[3] == ("reached" if is_reached else "**missed**"), cells


def test_figures_of_a_busy_machine_are_told_as_such() -> None:
    assert "busy machine" in page.machine_words(replace(report(), others=0.3))
    assert "busy machine" not in page.machine_words(report())


def test_ratios_are_taken_within_rounds() -> None:
    made = replace(report(), values={"a": [10.0, 1.0, 6.0], "b": [10.0, 2.0, 2.0]})
    # Of 1, .5 and 3; the medians are 6 and 2.
    assert made.ratio("a", "b") == 1.0
    assert made.median("a") == 6.0


def test_operations_are_those_of_the_formula() -> None:
    # 6 layers of 384: 21.2 million in the linear layers, 1.2 for attention at 128 tokens.
    assert report().operations(128) == pytest.approx(21.23e6 + 1.18e6, rel=1e-3)


def test_a_report_survives_its_file(tmp_path: Path) -> None:
    before = replace(report(), peers=[PeerTable("t", "w", ["a"], [["1"]])])
    before.write(tmp_path / "last.json")
    assert read_report(tmp_path / "last.json") == before


def _sample(rate: float) -> dict[str, float]:
    return {"texts_s": rate, "cpu_ms": 1.0, "foreign": 0.0}


def harness_run(part: str) -> dict[str, object]:
    moment = {"time": "now", "cpu": "a CPU", "cores": 2, "load": [0.5, 0.5, 0.5]}
    common = {"part": part, "rounds": 2, "start": moment, "end": moment, "subjects": ["us"]}
    return {**common, "failed": {"them-too": "it did not start"}}


def test_others_are_shown_beside_us(tmp_path: Path) -> None:
    def target(rate: float) -> dict[str, object]:
        one = {
            "a": {"took": [1.0, 2.0, 30.0]},
            "b": _sample(rate),
            "c": _sample(rate / 10),
            "d": {"took": [5.0], "bulk_texts_s": rate},
        }
        return {"rounds": [one, one], "check": {"cos_mean": 0.999}}

    run = {**harness_run("http"), "targets": {"them": target(100), "us": target(200)}}
    (tmp_path / "http.json").write_text(json.dumps(run))
    found = peers.read_peers(tmp_path / "http.json")
    assert [row[0] for row in found.rows] == ["**us**", "them"]
    assert found.rows[0][1:4] == ["2.0 / 30.0 ms", "200 (2.00)", "20 (2.00)"]
    assert "them-too (it did not start)" in found.words
    assert found.rows[1][3] in page.page(replace(report(), peers=[found]))


def test_libraries_are_shown_beside_us(tmp_path: Path) -> None:
    def library(rate: float) -> dict[str, object]:
        samples = {"q16": [_sample(rate)] * 3, "mix": [_sample(rate / 2)] * 3}
        fidelity = {"q16": {"mean": 0.99}, "mix": {"mean": 0.98}}
        return {"samples": samples, "fidelity": fidelity, "peak_rss_mb": 300}

    run = {**harness_run("inproc"), "threads": 2, "mean_tokens": {"q16": 16.0, "mix": 130.4}}
    run["engines"] = {"us": library(30), "them": library(60)}
    (tmp_path / "inproc.json").write_text(json.dumps(run))
    found = peers.read_peers(tmp_path / "inproc.json")
    assert found.head[1:3] == ["q16 (16 tokens)", "mix (130 tokens)"]
    assert found.rows[1] == ["**us**", "30 (0.50)", "15 (0.50)", "0.98000", "300"]


def test_a_file_that_is_no_run_is_told(tmp_path: Path) -> None:
    (tmp_path / "other.json").write_text('{"part": "else"}')
    with pytest.raises(SystemExit, match=r"other\.json` is no file of the harness"):
        peers.read_peers(tmp_path / "other.json")
