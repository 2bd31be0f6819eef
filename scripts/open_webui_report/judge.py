"""What Open WebUI must have shown, and what must have reached embedserve and the language model."""

import re
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from scripts.open_webui_report.served import (
    ADA,
    BERT,
    DESK,
    EVERYBODY,
    INDEX,
    MODEL,
    TOOL_CALLER,
    Person,
    Served,
)
from tests.llm_double import Asked
from tests.llm_quotes import NOTHING, TASK

Seen = dict[str, Any]
PASSAGE = "When the owner goes out of scope, the value will be dropped."
USER_CHECK = "a user asks it the same: their own documents alone, behind links"
ESTIMATOR = "Ellis Turner"
"""Who the invoice names; it is in its first page."""


@dataclass(frozen=True)
class Row:
    """One check."""

    what: str
    problem: str
    """Empty where it went as it should."""


@dataclass(frozen=True)
class Evidence:
    """What was seen, and the servers, which still run."""

    seen: Seen
    both: Served
    upload: Path
    reranker: str = ""

    def step(self, name: str) -> Seen:
        """Return what a step saw; raises AssertionError where it failed."""
        found: Seen = self.seen[name]
        _must(not found.get("error"), f"the browser: {found.get('error')}")
        return found


def judge(evidence: Evidence, only: Collection[str] = ()) -> list[Row]:
    """Return a row for each check, or for those that are named."""
    rows = []
    for what in only or _CHECKS:
        try:
            _CHECKS[what](evidence)
        except AssertionError as error:
            rows.append(Row(what, str(error)))
        else:
            rows.append(Row(what, ""))
    return rows


def _settings(found: Evidence) -> None:
    told = found.step("settings")
    _must(told["saved"] == 200, f"saving the header gave status {told['saved']}")
    wanted = {f"rag/{INDEX}", f"rag/{INDEX}@{MODEL}", f"rag/{DESK}", MODEL}
    _must(wanted <= set(told["models"]), f"its models are {told['models']}")
    _must("all-minilm" not in str(told["models"]), "it offers an embedding model for chats")


def _answer(step: str) -> Callable[[Evidence], None]:
    def check(found: Evidence) -> None:
        told = found.step(step)
        answer, source = told["answer"], told["source"]
        _must(f"Found in {INDEX}:" in answer["text"], f"no status: {answer['text']}")
        _must(NOTHING not in answer["text"], f"no passages reached the model: {answer['text']}")
        _must(bool(answer["sources"]), f"no sources: {answer['text']}")
        _must(answer["cited"] == answer["sources"][:1], f"{answer['cited']} is cited")
        _must(source["heading"] == answer["cited"][0], f"the source is {source['heading']}")
        _must("%" in source["text"], f"no relevance: {source['text']}")
        for link in ("title", "content"):
            _must(PASSAGE in source[link]["text"], f"its {link} opens {source[link]}")

    return check


def _tool(found: Evidence) -> None:
    _answer("tool")(found)
    plain, called = (found.step(one)["source"]["text"] for one in ("chat", "tool"))
    _must(called.count("Content\n") == plain.count("Content\n"), "passages are shown twice")


def _nothing(found: Evidence) -> None:
    answer = found.step("nothing")["answer"]
    _must(f"No evidence found in {INDEX}" in answer["text"], answer["text"])
    _must(not answer["sources"], f"sources: {answer['sources']}")


def _file(found: Evidence) -> None:
    told = found.step("file")
    _must(told["answer"]["sources"] == [found.upload.name], f"{told['answer']}")
    _must(NOTHING not in told["answer"]["text"], told["answer"]["text"])
    http, name = found.both.live.http, {"X-Filename": found.upload.name}
    read = http.put("/process", content=found.upload.read_bytes(), headers=name).json()
    counted = http.get("/metrics").text
    loaded = {one["name"] for one in http.get("/api/ps").json()["models"]}
    theirs = "".join(told["file"]["content"].split())
    ours = "".join("".join(part["page_content"].split()) for part in read)
    _must(theirs == ours, "its text is not what embedserve's document loader reads")
    _must(ESTIMATOR in told["file"]["content"], "its text lacks what the file says")
    embedded = 'embedserve_requests_total{route="/api/embed",status="200"}'
    _must(embedded in counted, "nothing was embedded through /api/embed")
    if found.reranker:
        _must(any(one.startswith(found.reranker) for one in loaded), "the reranker was not used")


def _both(found: Evidence) -> None:
    answer = found.step("both")["answer"]
    _must(answer["sources"][:1] == [found.upload.name], f"{answer['sources']}")
    _must(NOTHING not in answer["text"], answer["text"])


def _tasks(found: Evidence) -> None:
    asked = found.both.theirs.asked
    tasks = [one for one in asked if one.last.startswith("### Task:") and not _streams(one)]
    for name in ("title", "tags", "follow_ups"):
        about = [one for one in tasks if f'"{name}"' in one.last]
        _must(bool(about), f"no task for `{name}` reached the language model")
    _must(not any("<<< " in one.last for one in tasks), "a task was given passages")
    _must(found.step("chat")["answer"]["title"].startswith(TASK["title"]), "the title is not shown")
    _must(TASK["follow_ups"][0] in found.step("chat")["answer"]["text"], "no follow-up is shown")
    chats = [one for one in asked if _streams(one) and one.body["model"] in (MODEL, TOOL_CALLER)]
    _must(sum("<<< " in str(one.body["messages"]) for one in chats) >= 4, "chats had no passages")


def _streams(one: Asked) -> bool:
    return bool(one.body.get("stream"))


def _tools(found: Evidence) -> None:
    told = found.step("tools")
    _must(told["verified"]["status"] == told["saved"] == 200, f"{told['verified']}")
    _must("/search_chunks" in told["verified"]["body"]["paths"], "tools are missing")
    ids = [one["id"] for one in told["tools"]]
    _must("server:documents" in ids, f"its tools are {ids}")


def _people(found: Evidence) -> None:
    told = found.step("people")
    _must(told["added"] == 200, f"adding a user gave status {told['added']}")
    _must(told["shared"] == 200, f"showing the model to all gave status {told['shared']}")


def _own(step: str, person: Person, other: Person) -> Callable[[Evidence], None]:
    def check(found: Evidence) -> None:
        told = found.step(step)
        answer, source = told["answer"], told["source"]
        _must(f"Found in {DESK}:" in answer["text"], f"no status: {answer['text']}")
        _must(answer["sources"] == [person.title, EVERYBODY.title], f"{answer['sources']}")
        _must(source["heading"] == person.title, f"the source is {source['heading']}")
        _must(_figure(person) in answer["text"], f"not their own: {answer['text']}")
        _must(_figure(other) not in str(told), f"somebody else's: {told}")
        for link in ("title", "content"):
            _must(source[link]["text"] == person.text, f"its {link} opens {source[link]}")
        given = [one for one in found.both.theirs.asked if _figure(person) in str(one.body)]
        _must(bool(given), "the language model was given nothing of theirs")
        _must(not any(_figure(other) in str(one.body) for one in given), "given somebody else's")
        _closed(source["title"]["url"])

    return check


def _figure(person: Person) -> str:
    """Return what their document alone says."""
    return " ".join(re.findall(r"[0-9],[0-9]{3} euros", person.text))


def _closed(url: str) -> None:
    """Raise AssertionError unless a link opens the page by its signature alone."""
    with httpx.Client(trust_env=False) as browser:
        opened = browser.get(url)
        closed = browser.get(re.sub("signed=[^&#]*", "", url))
    _must(opened.status_code == 200, f"the link gives status {opened.status_code}")
    _must(closed.status_code == 404, f"without its signature it gives {closed.status_code}")


def _quiet(found: Evidence) -> None:
    places = (found.both.url, found.seen["webui"], "data:", "blob:")
    others = [one for one in found.seen["requested"] if not one.startswith(places)]
    code = found.both.url.partition("//")[2]
    told = [one for one in others if code in one or "favicon" in one]
    _must(not told, f"the page told others of a document: {told}")


def _must(holds: bool, problem: str) -> None:
    if not holds:
        raise AssertionError(problem)


_CHECKS: dict[str, Callable[[Evidence], None]] = {
    "the connection lists models of indexes, and no embedding models": _settings,
    "rag/INDEX: status, answer, sources, and a link to the marked passage": _answer("chat"),
    "rag/INDEX@MODEL: the same": _answer("named"),
    "a tool is called in between: sources are shown once": _tool,
    "no evidence: it is said, without sources": _nothing,
    "a file: loaded and embedded here, and cited": _file,
    "a file and an index in one chat: numbers lead to the right source": _both,
    "titles, tags and follow-ups reach the language model without passages": _tasks,
    "the tool server is verified and offered": _tools,
    "a user is added, and may ask a protected index": _people,
    "an administrator asks it: their own documents alone, behind links": _own("admin", ADA, BERT),
    USER_CHECK: _own("user", BERT, ADA),
    "no address of a document is told to another site": _quiet,
}
