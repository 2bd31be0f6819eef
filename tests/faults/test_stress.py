"""The scenarios of `scripts/stress`, small: what they ask of the server holds, and they can fail.

The full ones are run by hand: `scripts/stress`.
"""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from scripts.serving import USUAL_OPEN_FILES, Server, fresh_home, serve
from scripts.stress_report.client import Answer
from scripts.stress_report.drain import SHORT_QUEUE as CLIENTS
from scripts.stress_report.drain import drain
from scripts.stress_report.flood import SETTINGS, flood
from scripts.stress_report.overload import SHORT_QUEUE, overload
from scripts.stress_report.report import judge, missed, table
from scripts.stress_report.scenarios import SCENARIOS
from scripts.stress_report.soak import growth_percent, soak
from scripts.stress_report.targets import ERRORS, SHORT, TARGETS, Figures
from scripts.stress_report.wedge import wedge

FEW_FILES = 256


@pytest.fixture(scope="module")
def stressed(model_home: Path) -> Iterator[Server]:
    with (
        fresh_home(model_home / "models") as home,
        serve(home, {**SETTINGS, **SHORT_QUEUE}, files_at_start=USUAL_OPEN_FILES) as server,
    ):
        yield server
        server.stop()
        assert server.process.returncode == 0, server.log()
        assert server.errors == 0, server.log()


def assert_met(scenario: str, figures: Figures, server: Server | None = None) -> None:
    if server:
        figures = {**figures, ERRORS: server.errors}
    rows = judge(scenario, figures, is_short=True)
    assert missed(rows) == [], table(rows)


def test_a_flood_is_answered_as_one_batch_is(model_home: Path) -> None:
    # Fewer open files than the flood has connections: the server must ask for more.
    with (
        fresh_home(model_home / "models") as home,
        serve(home, SETTINGS, files_at_start=FEW_FILES) as server,
    ):
        assert_met("flood", asyncio.run(flood(server, SHORT.flood_requests)), server)


def test_ten_times_the_capacity_is_refused_quickly_and_leaves_no_trace(stressed: Server) -> None:
    assert_met("overload", asyncio.run(overload(stressed, SHORT.overload_s)), stressed)


def test_memory_stays_under_texts_of_every_kind(stressed: Server) -> None:
    assert_met("soak", asyncio.run(soak(stressed, SHORT)), stressed)


def test_a_text_that_breaks_its_worker_harms_no_other(model_home: Path) -> None:
    assert_met("wedge", wedge(model_home / "models", SHORT.steady_s))


def test_sigterm_under_load_answers_what_was_accepted(model_home: Path) -> None:
    with (
        fresh_home(model_home / "models") as home,
        serve(home, files_at_start=USUAL_OPEN_FILES) as server,
    ):
        assert_met("drain", asyncio.run(drain(server, CLIENTS, SHORT.steady_s)), server)


def test_every_scenario_has_targets_and_every_target_a_scenario() -> None:
    assert set(SCENARIOS) == set(TARGETS)


def test_a_figure_beyond_its_target_is_missed_and_so_is_one_that_is_not_there() -> None:
    target = TARGETS["idle"]["CPU, % of a core"]
    assert target.is_met(0.5, is_short=False)
    assert not target.is_met(1.5, is_short=False)
    rows = judge("idle", {"CPU, % of a core": 1.5, "processes": 2, ERRORS: 0}, is_short=False)
    assert [row.is_met for row in rows] == [False, True, True]
    assert "1.5" in missed(rows)[0]
    assert "at most 1 was asked" in missed(rows)[0]
    assert len(missed(judge("idle", {}, is_short=False))) == len(TARGETS["idle"])
    assert "**MISSED**" in table(rows)


def test_growth_compares_the_end_with_the_beginning() -> None:
    assert growth_percent([90, 110, *[500] * 16, 150, 140]) == pytest.approx(45)
    assert growth_percent([100] * 10) == 0
    assert growth_percent([200, 100]) == -50


def test_a_refusal_is_what_the_clients_of_its_route_understand() -> None:
    busy = b'{"error":"server busy, please try again.  maximum pending requests exceeded"}'
    assert Answer("/api/embed", 503, 0, 0, {}, busy).is_refusal
    assert not Answer("/api/embed", 503, 0, 0, {}, b'{"error":"other"}').is_refusal
    assert not Answer("/api/embed", 429, 0, 0, {}, busy).is_refusal
    assert Answer("/v1/embeddings", 429, 0, 0, {"retry-after": "3"}, busy).is_refusal
    assert not Answer("/v1/embeddings", 429, 0, 0, {"retry-after": "0"}, busy).is_refusal
    assert not Answer("/v1/embeddings", 429, 0, 0, {}, busy).is_refusal
