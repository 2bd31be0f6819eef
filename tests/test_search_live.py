"""Queries on a live server: by vectors and words, filtered, as passages, within a budget."""

import json
import shutil
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.live import LiveServer
from tests.tiny_installed import install_tiny
from tests.tiny_models import Exported

MODES = ("hybrid", "dense", "lexical")
FIELDS = ["wheat", "barley", "maize", "rice", "potatoes", "beans", "apples", "hops", "flax", "rye"]
MANUAL = "# Fields\n\n" + "\n\n".join(
    f"## Plot {number}\n\nPlot number {number} grows {crop}. It is ploughed in week {number + 9}, "
    f"sown by row and watered from well {number}. Whoever harvests {crop} leaves the stalks "
    f"beside the path, where the cart of plot {number} picks them up on the {number + 2}th day."
    for number, crop in enumerate(FIELDS, start=1)
)
CODES = (
    *("KX-4411-B", "KX-4412-B", "KX-4141-B", "KX-1441-D"),
    *("KX-4417-A", "KX-4511-B", "KX-4114-B", "KX-1414-B"),
)
FAULT = "Fault {}: the pump stopped by itself. Look at the valve, then start it again."
NOTICE = (
    "Visitors sign the book at the gate and wear the badge where it can be seen. Cars are parked "
    "behind the hall, bicycles in front of it. Photographs need the consent of whoever is in them. "
    "When the bell rings twice, leave by the nearest door and wait at the oak to be counted."
)
SHARED = "The well of the monastery is closed in winter because its chain freezes."


@pytest.fixture(scope="module")
def live(model_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    """A server with documents in two indexes."""
    folder = tmp_path_factory.mktemp("searched")
    home = folder / "home"
    shutil.copytree(model_home / "models", home / "models")
    with LiveServer(home) as server:
        send(server, "farm", ("manual.md", MANUAL, {"year": 2024}))
        faults: list[Text] = [
            (f"fault-{n}.txt", FAULT.format(code), {}) for n, code in enumerate(CODES)
        ]
        send(server, "farm", *faults)
        send(
            server,
            "farm",
            ("notice-1.txt", NOTICE, {}),
            ("notice-2.txt", NOTICE.replace("twice", "thrice"), {}),
        )
        for team in ("a", "b"):
            send(server, "farm", (f"{team}/well.txt", SHARED, {"team": team}), title="Well")
        send(server, "sea", ("notice.txt", NOTICE, {}))
        send(server, "sea", ("boats.txt", "Herring boats leave the harbour before sunrise.", {}))
        yield server


Text = tuple[str, str, dict[str, Any]]


def send(server: LiveServer, index: str, *texts: Text, title: str = "") -> None:
    server.http.put(f"/indexes/{index}", json={}).raise_for_status()
    documents = [
        {"name": name, "text": text, "metadata": metadata, **({"title": title} if title else {})}
        for name, text, metadata in texts
    ]
    body = {"documents": documents}
    server.http.post(f"/indexes/{index}/documents?wait=true", json=body).raise_for_status()


def paths(hits: list[dict[str, Any]]) -> list[str]:
    return [hit["document"]["path"] for hit in hits]


def test_hybrid_finds_identifiers_that_vectors_confuse(live: LiveServer) -> None:
    missed: dict[str, list[str]] = {mode: [] for mode in MODES}
    for mode in MODES:
        for code in CODES:
            [hit] = live.query("farm", f"What is {code}?", k=1, mode=mode)
            if code not in hit["text"]:
                missed[mode].append(code)
    assert missed["dense"]
    assert missed["hybrid"] == missed["lexical"] == []
    assert hit["scores"]["bm25"] > 0
    assert -1 <= hit["scores"]["cosine"] <= 1, "also of what the words alone found"
    assert 0 < hit["score"] == hit["scores"]["relevance"] < 1


@pytest.mark.parametrize("mode", MODES)
def test_a_filter_holds_in_each_leg_and_for_each_place_of_a_text(
    live: LiveServer, mode: str
) -> None:
    question = "Why is the well closed in winter?"
    [hit] = live.query("farm", question, k=1, mode=mode)
    assert (hit["places"], hit["document"]["path"]) == (2, "a/well.txt")
    filters: tuple[dict[str, Any], ...] = ({"metadata": {"team": "b"}}, {"paths": ["b/*"]})
    for wanted in filters:
        [hit] = live.query("farm", question, k=5, mode=mode, filter=wanted)
        assert (hit["places"], hit["document"]["path"], hit["also_in"]) == (1, "b/well.txt", [])
    assert live.query("farm", question, mode=mode, filter={"metadata": {"team": "c"}}) == []
    reply = live.ask("farm", query="well", mode=mode, filter={"metadata": {"tame": "b"}})
    assert reply["hits"] == []
    assert "`tame`" in reply["warnings"][0]


def test_passages_are_joined_neighbours_that_do_not_overlap(live: LiveServer) -> None:
    hits = live.ask("farm", query="Which plot grows hops and barley?", k=4)["hits"]
    joined = [hit for hit in hits if hit["document"]["path"] == "manual.md"]
    assert any(len(hit["chunks"]) > 1 for hit in joined)
    for hit in joined:
        assert hit["text"].split() == MANUAL[hit["start"] : hit["end"]].split()
        lines = MANUAL.splitlines()[hit["lines"]["start"] - 1 : hit["lines"]["end"]]
        assert hit["text"].split() == " ".join(lines).split()
        assert hit["permalink"].endswith(f"#chars={hit['start']}-{hit['end']}")
        assert hit["tokens"] <= 300
    spans = sorted((hit["start"], hit["end"]) for hit in joined)
    assert all(end <= start for (_, end), (start, _) in pairwise(spans))


@pytest.mark.parametrize("budget", [1, 60, 200, 1000])
def test_a_budget_of_tokens_is_never_exceeded(live: LiveServer, budget: int) -> None:
    reply = live.ask("farm", query="Which plot grows hops?", max_tokens=budget, explain=True)
    for hit in reply["hits"]:
        body = {"model": "all-minilm", "input": hit["text"]}
        counted = live.http.post("/api/embed", json=body).json()["prompt_eval_count"]
        assert hit["tokens"] == counted - 2, "less the two special ones"
    assert sum(hit["tokens"] for hit in reply["hits"]) <= budget
    assert bool(reply["hits"]) == (budget > 1)
    assert len({hit["text"] for hit in reply["hits"]}) == len(reply["hits"])
    assert (budget == 1000) or "no room in max_tokens" in {
        one["reason"] for one in reply["dropped"]
    }


def test_near_duplicates_are_one_hit_with_a_count(live: LiveServer) -> None:
    reply = live.ask("farm", query="What to do when the bell rings?", k=3, explain=True)
    [hit] = [hit for hit in reply["hits"] if "bell" in hit["text"]]
    assert hit["near_duplicates"] == 1
    assert "near duplicate" in [one["reason"] for one in reply["dropped"]]


def test_what_is_too_weak_is_left_out_and_the_best_of_it_told(live: LiveServer) -> None:
    question = "Who won the chess championship?"
    reply = live.ask("farm", query=question, min_score=0.9)
    best = max(hit["score"] for hit in live.query("farm", question, k=20))
    assert reply["hits"] == []
    assert 0 < reply["best_rejected"] < 0.9
    assert reply["best_rejected"] == pytest.approx(best)
    answered = live.ask("farm", query="What do visitors sign at the gate?", min_score=0.6)
    assert [hit["near_duplicates"] for hit in answered["hits"]] == [1], "those of the notice"


def test_words_that_nothing_has_are_corrected(live: LiveServer) -> None:
    reply = live.ask("farm", query="monestary", mode="lexical")
    assert (reply["hits"], reply["suggestions"]) == ([], {"monestary": ["monastery"]})
    assert live.ask("farm", query="monastery", mode="lexical")["suggestions"] == {}


@pytest.mark.parametrize("mode", MODES)
def test_hits_tell_where_the_words_stand_and_which_sentence_has_them(
    live: LiveServer, mode: str
) -> None:
    reply = live.ask("farm", query="Who is watering the plots of hops?", k=1, mode=mode)
    [hit] = reply["hits"]
    marked = hit["highlights"]
    words = {hit["text"][start:end] for start, end in marked["spans"]}
    assert {"watered", "plot", "hops"} <= words <= {"watered", "plot", "Plot", "hops"}
    assert marked["terms"] == ["watering", "plots", "hops"]
    assert marked["sentences"]
    for one in marked["sentences"]:
        told = hit["text"][one["text_start"] : one["text_end"]]
        assert MANUAL[one["start"] : one["end"]] == told
        assert words & set(told.replace(".", " ").split())
    plain = live.ask("farm", query="hops", k=1, mode=mode, highlight=False)
    assert "highlights" not in plain["hits"][0]


def test_several_questions_are_fused(live: LiveServer) -> None:
    reply = live.ask(
        "farm", queries=["Why is the well closed?", "What is KX-4141-B?"], k=2, explain=True
    )
    assert {"a/well.txt"} < set(paths(reply["hits"]))
    assert any("KX-4141-B" in hit["text"] for hit in reply["hits"])
    assert {leg for hit in reply["hits"] for leg in hit["legs"]} >= {"lexical", "lexical 2"}
    for queries in ([], ["a"] * 17, ["a", " "]):
        refused = live.http.post("/indexes/farm/query", json={"queries": queries})
        assert refused.status_code == 400


def test_several_indexes_answer_together(live: LiveServer) -> None:
    body: dict[str, Any] = {
        "indexes": ["farm", "sea", "sea"],
        "query": "When do herring boats leave?",
        "k": 2,
    }
    reply = live.http.post("/query", json=body).json()
    assert reply["hits"][0]["index"] == "sea"
    assert len(reply["hits"]) == 2
    assert reply["hits"][0]["score"] > reply["hits"][1]["score"]
    assert reply["indexes"].keys() == {"farm", "sea"}
    both = live.http.post("/query", json={**body, "query": "What if the bell rings?"}).json()[
        "hits"
    ]
    [hit] = [hit for hit in both if "bell" in hit["text"]]
    assert hit["near_duplicates"] == 2, "one of its own index, one of the other"
    lost = live.http.post("/query", json={**body, "indexes": ["farm", "nope"]})
    assert lost.status_code == 404
    assert "`nope`" in lost.json()["error"]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("fusion", ["sureness", "scores", "ranks"])
def test_every_mode_and_fusion_explains_itself(live: LiveServer, mode: str, fusion: str) -> None:
    reply = live.ask(
        "farm", query="winter well chain", mode=mode, fusion=fusion, explain=True, exact=True
    )
    best = reply["hits"][0]
    wanted = {"dense": {"dense"}, "lexical": {"lexical"}, "hybrid": {"dense", "lexical"}}[mode]
    assert best["legs"].keys() == wanted
    assert {leg["rank"] for leg in best["legs"].values()} == {1}
    assert best["scores"]["fused"] > 0
    assert reply["mode"] == mode
    assert reply["exact"] is (mode != "lexical")
    assert reply["timings_ms"].keys() >= {"embed", "fuse", "answer", *wanted}


def test_a_reranker_orders_anew_within_its_time(
    live: LiveServer, exported: dict[str, Exported]
) -> None:
    install_tiny(live.home / "models", exported["bert-reranker"], "judge")
    asked = {"query": "old mill", "k": 8, "passage_tokens": 0, "rerank_timeout_ms": 60_000}
    reply = live.ask("farm", **asked, rerank="judge")
    scores = [hit["scores"]["reranked"] for hit in reply["hits"]]
    assert scores == sorted(scores, reverse=True) == [hit["score"] for hit in reply["hits"]]
    only = live.ask("farm", **asked, rerank=True)
    assert [hit["id"] for hit in only["hits"]] == [hit["id"] for hit in reply["hits"]]
    fused = live.ask("farm", **{**asked, "rerank": False})
    hasty = {**asked, "query": "new mill", "rerank": True, "rerank_timeout_ms": 1}
    late = live.ask("farm", **hasty)
    assert all(hit["scores"]["reranked"] is None for hit in [*fused["hits"], *late["hits"]])
    assert "rerank_timeout_ms" in late["warnings"][0]
    reply_to_none = live.http.post("/indexes/farm/query", json={**asked, "rerank": "nope"})
    assert reply_to_none.status_code == 404


def test_variety_prefers_what_others_do_not_say(live: LiveServer) -> None:
    hits = live.query("farm", "The pump stopped: which fault?", k=6, diversity=0.9)
    assert not all("pump" in hit["text"] for hit in hits)


HOSTILE = [
    "the of and", "?!… --- ***", '"unclosed AND (OR NOT NEAR/3 col:x*', "a\0b", "\0", "שלום עולם",
    "👩‍🌾🌾", "\u202egnp.exe", "' OR 1=1; DROP TABLE chunks; --", "%s {0} $(reboot)", "x" * 5000,
    "\ufeff\u200b", "a\ud800", "\U0001d54e\U0001d556\U0001d55d\U0001d55d", "e\u0301" * 300,
]  # fmt: skip


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_no_text_is_an_error(live: LiveServer, text: str) -> None:
    for mode in MODES:
        body = json.dumps({"query": text, "mode": mode})  # half a surrogate pair is escaped
        reply = live.http.post("/indexes/farm/query", content=body)
        assert reply.status_code == 200, reply.text


@pytest.mark.parametrize("mode", MODES)
def test_a_very_long_text_is_cut_and_said_to_be(live: LiveServer, mode: str) -> None:
    text = " ".join(f"word{number} well" for number in range(80_000))
    assert len(text) > 1_000_000
    reply = live.ask("farm", query=text, k=1, mode=mode)
    assert any("cut to the model's" in warning for warning in reply["warnings"])
    assert any("first 256 words" in told for told in reply["warnings"]) is (mode != "dense")
    assert "well" in reply["hits"][0]["text"]
    word = live.http.post("/indexes/farm/query", json={"query": "x" * 1_000_000, "mode": mode})
    assert word.status_code == 200, word.text


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("text", ["", " ", "\n\t\u3000"])
def test_blanks_are_no_question(live: LiveServer, mode: str, text: str) -> None:
    reply = live.http.post("/indexes/farm/query", json={"query": text, "mode": mode})
    assert (reply.status_code, "query is empty" in reply.json()["error"]) == (400, True)


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ({"query": ""}, "The query is empty"),
        ({"query": "a", "queries": ["b"]}, "or several as `queries`"),
        ({"query": "a", "k": 3, "max_tokens": 100}, "`k` or `max_tokens`"),
        ({"query": "a", "mode": "fuzzy"}, "`mode`"),
        ({"query": "a", "min_score": 2}, "`min_score`"),
        ({"query": "a", "max_tokens": 0}, "between 1 and"),
        ({"query": "a", "filter": {"pathz": ["*"]}}, "`filter.pathz`"),
    ],
)
def test_what_cannot_be_asked_is_told(live: LiveServer, body: object, told: str) -> None:
    reply = live.http.post("/indexes/farm/query", content=json.dumps(body))
    assert reply.status_code == 400, reply.text
    assert told in reply.json()["error"]


def test_a_document_is_gone_with_the_call_that_deletes_it(live: LiveServer) -> None:
    for number in range(3):
        send(live, "sea", ("gulls.txt", f"Gulls follow trawler {number} for scraps.", {}))
        assert "gulls.txt" in paths(live.query("sea", "What do gulls follow?"))
        live.http.delete("/indexes/sea/documents/gulls.txt").raise_for_status()
        for mode in MODES:
            assert "gulls.txt" not in paths(live.query("sea", "What do gulls follow?", mode=mode))
