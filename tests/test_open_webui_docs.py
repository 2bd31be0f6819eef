"""docs/front-ends.md tells users what scripts/open_webui sets, and shows what it saw."""

import re
from pathlib import Path

from scripts.open_webui_report.__main__ import PINS
from scripts.open_webui_report.judge import USER_CHECK, Evidence, judge
from scripts.open_webui_report.served import ADA, BERT, DESK, EVERYBODY, Served
from scripts.open_webui_report.webui import Addresses, settings
from tests.live import LiveServer
from tests.llm_double import LanguageModels

DOCS = Path(__file__).parent.parent / "docs"
PAGE = (DOCS / "front-ends.md").read_text(encoding="utf-8")
PICTURE_BYTES = 150_000


def test_every_setting_that_was_tried_is_on_the_page() -> None:
    where = Addresses("http://here", "key", "http://model/v1", "secret", "reranker")
    tried = settings(where)
    assert "RAG_RERANKING_MODEL" in tried
    # Without Ollama's connection, which is another way to the same models.
    assert [name for name in tried if f"{name}=" not in PAGE] == ["ENABLE_OLLAMA_API"]


def test_the_version_on_the_page_is_the_one_that_is_pinned() -> None:
    pins = PINS.read_text(encoding="utf-8").split()
    assert all(line.count("==") == 1 for line in pins)
    [pinned] = [line.partition("==")[2] for line in pins if line.startswith("open-webui==")]
    assert set(re.findall(r"Open WebUI (\d+\.\d+\.\d+) ", PAGE)) == {pinned}


def test_pictures_are_there_and_small() -> None:
    shown = {DOCS / path for path in re.findall(r"!\[[^]]+\]\(([^)]+)\)", PAGE)}
    assert len(shown) == 3
    assert shown == set((DOCS / "pictures").iterdir())
    assert all(path.stat().st_size < PICTURE_BYTES for path in shown)


def test_steps_that_failed_in_the_browser_fail_every_check_on_them() -> None:
    steps = ("settings", "chat", "named", "tool", "nothing", "file", "both", "tools")
    people = ("people", "admin", "user")
    seen = {name: {"error": "no answer"} for name in (*steps, *people)}
    leak = "https://icons.example/?domain=http://here/d/1-code"
    asked = {**seen, "webui": "http://webui", "requested": ["http://webui/", leak]}
    rows = judge(Evidence(asked, _NoServer(), Path("a.pdf")))
    assert len(rows) == 13
    assert all(row.problem for row in rows)
    assert leak in rows[-1].problem


def test_a_source_of_somebody_else_fails_the_check_on_it() -> None:
    text = f"Found in {DESK}: 2 documents\n> {BERT.text} [1]"
    answer = {"text": text, "sources": [BERT.title, EVERYBODY.title]}
    link = {"url": "http://here/d/1-code?signed=1-a", "text": BERT.text}
    source = {"heading": BERT.title, "text": BERT.text, "title": link, "content": link}
    shown = {"answer": answer, "source": source}
    for part, leaked in (
        ({"answer": {**answer, "sources": [ADA.title, BERT.title]}}, "Ada's budget"),
        ({"answer": {**answer, "text": text + ADA.text}}, "somebody else's"),
        ({"source": {**source, "title": {**link, "text": ""}}}, "its title opens"),
        ({}, "given nothing"),  # to the language model
    ):
        rows = judge(
            Evidence({"user": {**shown, **part}}, _NoServer(), Path("a.pdf")), {USER_CHECK}
        )
        assert [leaked in row.problem for row in rows] == [True], rows


class _NoServer(Served):
    def __init__(self) -> None:
        super().__init__(LiveServer.__new__(LiveServer), LanguageModels())

    @property
    def url(self) -> str:
        return "http://here"
