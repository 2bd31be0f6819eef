"""docs/front-ends.md tells users what scripts/open_webui sets, and shows what it saw."""

import re
from pathlib import Path

from scripts.open_webui_report.__main__ import PINS
from scripts.open_webui_report.judge import Evidence, judge
from scripts.open_webui_report.served import Served
from scripts.open_webui_report.webui import Addresses, settings
from tests.live import LiveServer
from tests.llm_double import LanguageModels

DOCS = Path(__file__).parent.parent / "docs"
PAGE = (DOCS / "front-ends.md").read_text(encoding="utf-8")
PICTURE_BYTES = 150_000


def test_every_setting_that_was_tried_is_on_the_page() -> None:
    where = Addresses("http://here", "key", "http://model/v1", "reranker")
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
    seen = {name: {"error": "no answer"} for name in steps}
    leak = "https://icons.example/?domain=http://here/d/1-code"
    asked = {**seen, "webui": "http://webui", "requested": ["http://webui/", leak]}
    rows = judge(Evidence(asked, _NoServer(), Path("a.pdf")))
    assert len(rows) == 10
    assert all(row.problem for row in rows)
    assert leak in rows[-1].problem


class _NoServer(Served):
    def __init__(self) -> None:
        super().__init__(LiveServer.__new__(LiveServer), LanguageModels())

    @property
    def url(self) -> str:
        return "http://here"
