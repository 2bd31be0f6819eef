"""What is measured of a search, from requests to the report; the search here is a list."""

import xml.etree.ElementTree as ET
from collections.abc import Sequence
from pathlib import Path

import pytest

from embedserve.errors import EmbedserveError
from embedserve.ranking.metrics import DocumentSpan
from embedserve.services.evaluation import (
    FIRST_K,
    FoundPassage,
    Search,
    latencies_ms,
    measure,
    rank_documents,
    span_figures,
)
from embedserve.services.evaluation_report import Row, Run, table_of, write_report
from embedserve.services.evaluation_sets import JudgedSet, SetDocument, SetQuery
from embedserve.services.search_request import SearchRequest

TEXT = "Green tea is brewed at 70 degrees. Coffee is brewed hot."


def passage(
    document: str, start: int = 0, end: int = 5, *, others: Sequence[str] = ()
) -> FoundPassage:
    places = [DocumentSpan(name, start, end) for name in (document, *others)]
    return FoundPassage(tuple(places), TEXT[start:end], 3)


def listed(found: Sequence[FoundPassage], asked: list[SearchRequest] | None = None) -> Search:
    """Answer every request with the first of a list, as many as it asks for."""

    def search(request: SearchRequest) -> Sequence[FoundPassage]:
        if asked is not None:
            asked.append(request)
        return found[: request.k]

    return search


def test_documents_are_ranked_by_their_best_chunk_and_deeper_until_there_are_a_hundred() -> None:
    found = [passage(f"d{number // 3}") for number in range(900)]
    asked: list[SearchRequest] = []
    ranking = rank_documents(listed(found, asked), SearchRequest(("?",), mode="dense"))
    assert ranking == [f"d{number}" for number in range(100)]
    assert [request.k for request in asked] == [FIRST_K, 200, 400]
    assert {(request.passage_tokens, request.mode) for request in asked} == {(0, "dense")}


def test_a_search_that_is_exhausted_is_asked_no_further() -> None:
    asked: list[SearchRequest] = []
    found = [passage("a"), passage("b", others=["c", "a"]), passage("a")]
    assert rank_documents(listed(found, asked), SearchRequest(("?",))) == ["a", "b", "c"]
    assert len(asked) == 1
    asked.clear()
    one_document = [passage("a")] * 5000
    assert rank_documents(listed(one_document, asked), SearchRequest(("?",))) == ["a"]
    assert [request.k for request in asked] == [FIRST_K, 200, 400, 800, 1000]


def test_metrics_are_means_over_the_queries() -> None:
    queries = (
        SetQuery("1", "one", gains={"a": 1}),
        SetQuery("2", "two", gains={"b": 1, "z": 1}),
    )
    judged = JudgedSet("s", "ranking", (SetDocument("a", "", TEXT),), queries)
    asked: list[SearchRequest] = []
    search = listed([passage("a"), passage("b")], asked)
    measured = measure(judged, search, SearchRequest((), mode="lexical"))
    assert measured.values["mrr@10"] == [1.0, 0.5]
    assert measured.means()["recall@10"] == 0.75
    assert measured.of([1]).means()["recall@100"] == 0.5
    assert (measured.timed, measured.p50_ms <= measured.p99_ms) == (2, True)
    assert {request.mode for request in asked} == {"lexical"}


def test_what_is_timed_is_asked_as_users_ask_after_a_warm_up() -> None:
    asked: list[SearchRequest] = []
    queries = [SetQuery(str(number), f"q{number}") for number in range(30)]
    times = latencies_ms(queries, listed([], asked), SearchRequest((), mode="dense"), most=15)
    assert (len(times), len(asked)) == (15, 25)
    left_open = {(one.k, one.max_tokens, one.passage_tokens, one.highlights) for one in asked}
    assert left_open == {(None, None, None, True)}


def test_spans_are_judged_within_the_budget_and_where_the_text_answers() -> None:
    answers = (DocumentSpan("b", 0, 10),)
    figures = span_figures([passage("a", 0, 5, others=["b"]), passage("c", 5, 10)], answers, 500)
    assert figures == {
        "span_recall@500": 0.5,
        "span_precision@500": 0.5,
        "span_iou@500": 5 / 15,
        "tokens": 6.0,
    }
    judged = JudgedSet(
        "s",
        "spans",
        (SetDocument("a", "", TEXT),),
        (SetQuery("1", "?", spans=(DocumentSpan("a", 0, 5),)),),
    )
    asked: list[SearchRequest] = []
    measured = measure(judged, listed([passage("a")], asked), SearchRequest(()), budget_tokens=500)
    assert (asked[0].max_tokens, asked[0].k) == (500, None)
    assert measured.means()["span_recall@500"] == 1.0
    moved = FoundPassage((DocumentSpan("a", 1, 6),), TEXT[:5], 3)
    with pytest.raises(EmbedserveError, match="line ends"):
        measure(judged, listed([moved]), SearchRequest(()))


def row(mode: str, values: list[float], half: str = "all") -> Row:
    queries = tuple(SetQuery(str(n), "?", gains={"a": 1}) for n in range(len(values)))
    judged = JudgedSet("drinks <&>", "ranking", (), queries)
    measured = measure(judged, listed([passage("a")]), SearchRequest(()))
    measured.values["ndcg@10"][:] = values
    facts = {"recipe": "int8", "chunk_tokens": 128, "half": half}
    return Row("drinks <&>", "ranking", mode, None, facts, measured)


def test_the_report_has_tables_differences_and_a_plot(tmp_path: Path) -> None:
    good, bad = [0.8, 0.9, 1.0] * 10, [0.1, 0.2, 0.3] * 10
    rows = [row("hybrid", good), row("dense", bad), row("lexical", good)]
    told = rows[0].as_json()
    assert told["ndcg@10"] == 0.9
    assert told["ndcg@10_low"] < 0.9 < told["ndcg@10_high"]
    assert (told["dataset"], told["mode"], told["queries"]) == ("drinks <&>", "hybrid", 30)
    [table] = table_of(rows)
    assert [line[1] for line in table.rows] == ["hybrid", "dense", "lexical"]
    path = tmp_path / "report.md"
    write_report(Run(rows, "embedserve eval drinks"), path)
    text = path.read_text(encoding="utf-8")
    assert "![" in text
    assert "(report.svg)" in text
    assert "`embedserve eval drinks`" in text
    lines = {line.split(",")[0]: line for line in text.splitlines() if line.startswith("- ")}
    assert lines["- dense"].endswith("30 worse of 30): worse")
    assert lines["- lexical"].endswith("tell from chance")
    drawn = ET.parse(tmp_path / "report.svg").getroot()
    texts = [one.text for one in drawn.iter("{http://www.w3.org/2000/svg}text")]
    assert texts[0] == "drinks <&>: ndcg@10"
    assert texts[2::2] == ["0.900", "0.200", "0.900"]
    widths = [float(one.attrib["width"]) for one in drawn.iter("{http://www.w3.org/2000/svg}rect")]
    assert widths[2] / widths[1] == pytest.approx(0.9, abs=0.001)
