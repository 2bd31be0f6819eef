"""Dify's calls of an external knowledge base, as its sources have them."""

from typing import Any

import httpx
import pytest

from tests.clients.conftest import READER, WRITER, FrontEnd, bearer

QUESTION = "What happens to a String when its variable goes out of scope?"


class Dify:
    """What Dify does with an endpoint: `api/services/external_knowledge_service.py` of it."""

    def __init__(self, endpoint: str, key: str) -> None:
        self.url, self.headers = f"{endpoint}/retrieval", bearer(key)

    def save(self) -> str:
        """Probe the endpoint with the key and no body, and tell whether it is taken."""
        reply = httpx.post(self.url, headers=self.headers, trust_env=False)
        refusals = {404: "not found", 403: "authorization failed", 502: "failed to connect"}
        return refusals.get(reply.status_code, "saved")

    def ask(self, **asked: Any) -> httpx.Response:  # noqa: ANN401  any JSON
        body = {
            "retrieval_setting": {"top_k": 4, "score_threshold": 0},
            "query": QUESTION,
            "knowledge_id": "book",
            "metadata_condition": None,
            **asked,
        }
        return httpx.post(self.url, json=body, headers=self.headers, timeout=60, trust_env=False)

    def records(self, **asked: Any) -> list[dict[str, Any]]:  # noqa: ANN401
        reply = self.ask(**asked)
        assert reply.status_code == 200, reply.text
        found: list[dict[str, Any]] = reply.json()["records"]
        return found


@pytest.fixture
def dify(front_end: FrontEnd) -> Dify:
    return Dify(front_end.url, READER)


def test_an_endpoint_is_saved_with_a_key_that_may_read(front_end: FrontEnd, dify: Dify) -> None:
    assert dify.save() == "saved"
    assert Dify(front_end.url, WRITER).save() == "saved"
    assert Dify(front_end.url, "wrong-0123456789").save() == "authorization failed"
    assert Dify(f"{front_end.url}/v9", READER).save() != "saved"


def test_records_hold_the_passage_its_score_and_where_it_is_from(dify: Dify) -> None:
    records = dify.records()
    assert len(records) == 4
    first = records[0]
    assert set(first) == {"content", "score", "title", "metadata"}
    assert first["title"] == "What Is Ownership?"
    assert any("`drop`" in one["content"] for one in records)
    assert all(0 <= one["score"] <= 1 for one in records)
    page = httpx.get(first["metadata"]["url"], trust_env=False)
    assert page.status_code == 200
    assert "What Is Ownership?" in page.text


def test_a_threshold_leaves_out_what_is_weaker(dify: Dify) -> None:
    scores = [one["score"] for one in dify.records()]
    least = (scores[0] + scores[-1]) / 2
    kept = dify.records(retrieval_setting={"top_k": 4, "score_threshold": least})
    assert [one["score"] for one in kept] == [score for score in scores if score >= least]
    nothing = {"top_k": 4, "score_threshold": 1}
    assert dify.records(query="zebra recipes", retrieval_setting=nothing) == []


def test_conditions_choose_documents(dify: Dify) -> None:
    named = {"name": ["document_name"], "comparison_operator": "contains", "value": "Borrowing"}
    records = dify.records(metadata_condition={"logical_operator": "and", "conditions": [named]})
    assert {one["title"] for one in records} == {"References and Borrowing"}


def test_errors_have_the_codes_that_dify_knows(front_end: FrontEnd, dify: Dify) -> None:
    unknown = dify.ask(knowledge_id="nope")
    assert (unknown.status_code, unknown.json()["error_code"]) == (404, 2001)
    wrong = Dify(front_end.url, "wrong-0123456789").ask()
    assert (wrong.status_code, wrong.json()["error_code"]) == (403, 1002)
    none = httpx.post(dify.url, headers={"Authorization": READER}, trust_env=False)
    assert (none.status_code, none.json()["error_code"]) == (403, 1001)
    bad = dify.ask(retrieval_setting={"top_k": 0})
    assert bad.status_code == 400
    assert "top_k" in bad.json()["error_msg"]
    # Dify shows none of it, so whoever runs the server finds it in the log.
    assert "Dify gets nothing: " in front_end.live.log()
