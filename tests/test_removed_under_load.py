"""What was deleted or replaced is in no answer to a question asked after the call returned."""

import random
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path
from threading import Event

import httpx
import pytest

from tests.live import LiveServer

READERS = 4
MOST_S = 8
"""Of asking and changing; what is checked holds at any moment, however many of them fit in."""
ROUNDS = 30
DOCUMENTS = 6
WAYS: tuple[dict[str, object], ...] = (
    {"mode": "hybrid"},
    {"mode": "dense"},
    {"mode": "lexical"},
    {"mode": "hybrid", "exact": True},
    {"mode": "hybrid", "max_tokens": 2000},
    {"mode": "hybrid", "filter": {"paths": ["*"]}},
)
THINGS = [
    *("apples", "salt", "iron", "wool", "paper", "glass", "honey", "tar", "rope", "wheat"),
    *("cloth", "coal", "oil", "tin", "wine", "hides", "cheese", "chalk", "cork", "amber"),
]


@pytest.fixture(scope="module")
def live(model_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    home = tmp_path_factory.mktemp("removed") / "home"
    home.mkdir()
    (home / "models").symlink_to(model_home / "models")
    with LiveServer(home) as server:
        server.http.put("/indexes/store", json={}).raise_for_status()
        yield server


class Removals:
    """Texts by a word that each alone has, and when the call that removed it had returned."""

    def __init__(self) -> None:
        self.gone: dict[str, float] = {}
        self.present: dict[int, str] = {}

    def note(self, place: int) -> None:
        if word := self.present.pop(place, None):
            self.gone[word] = time.monotonic()


def send(live: LiveServer, removals: Removals, place: int, word: str) -> None:
    """Put a document in a place, or another one in the place of it."""
    things = random.Random(word).sample(THINGS, 9)
    text = f"The barrel {word} in the cellar holds {', '.join(things)} for the winter."
    body = {"documents": [{"name": f"{place}.txt", "text": text}]}
    reply = live.http.post("/indexes/store/documents?wait=true", json=body)
    assert reply.status_code == 200, reply.text
    removals.note(place)
    removals.present[place] = word


def remove(live: LiveServer, removals: Removals, place: int, *, by_filter: bool) -> None:
    if by_filter:
        body = {"filter": {"paths": [f"{place}.txt"]}}
        live.http.post("/indexes/store/documents/delete", json=body).raise_for_status()
    else:
        live.http.delete(f"/indexes/store/documents/{place}.txt").raise_for_status()
    removals.note(place)


def ask(live: LiveServer, removals: Removals, first: int, stop: Event) -> dict[str, int]:
    """Ask until told to stop; count the texts that were seen, and those that had been removed."""
    seen = {"texts": 0, "removed": 0}
    with httpx.Client(base_url=live.http.base_url, timeout=60, trust_env=False) as client:
        for number in count(first):
            if stop.is_set():
                return seen
            gone = list(removals.gone)[-DOCUMENTS:]
            # What was just removed is asked for by its word and its meaning.
            words = " ".join([*gone, *list(removals.present.values())[:2]])
            way = dict(WAYS[number % len(WAYS)])
            way |= {} if "max_tokens" in way else {"k": 50}
            sent = time.monotonic()
            reply = client.post(
                "/indexes/store/query", json={"query": f"Which barrel in the cellar? {words}"} | way
            )
            assert reply.status_code == 200, reply.text
            said = " ".join(hit["text"] for hit in reply.json()["hits"])
            before = [word for word, at in list(removals.gone.items()) if at < sent]
            seen["texts"] += len(reply.json()["hits"])
            seen["removed"] += sum(f" {word} " in said for word in before)
    return seen


def test_what_was_removed_is_in_no_later_answer(live: LiveServer) -> None:
    removals, stop, words = Removals(), Event(), (f"mk{number}q" for number in count())
    for place in range(DOCUMENTS):
        send(live, removals, place, next(words))
    with ThreadPoolExecutor(READERS) as readers:
        asked = [readers.submit(ask, live, removals, n, stop) for n in range(READERS)]
        try:
            until = time.monotonic() + MOST_S
            for number in range(ROUNDS):
                place = number % DOCUMENTS
                if number % 3 == 0:
                    send(live, removals, place, next(words))  # replaced
                else:
                    remove(live, removals, place, by_filter=number % 3 == 1)
                    send(live, removals, place, next(words))
                if time.monotonic() > until:
                    break
        finally:
            stop.set()
        seen = [future.result() for future in asked]
    assert len(removals.gone) >= 2
    assert sum(one["texts"] for one in seen) > 0
    assert [one["removed"] for one in seen] == [0] * READERS
    # The check is able to fail: what is there is found by it.
    found = " ".join(hit["text"] for hit in live.query("store", "Which barrel?", k=50))
    assert all(f" {word} " in found for word in removals.present.values())
