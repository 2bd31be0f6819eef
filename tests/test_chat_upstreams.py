"""Who answers from an index: upstreams as settings name them, and two dialects between them."""

import asyncio
import re
from typing import Any

import pytest

from embedserve.api.body import Fields
from embedserve.api.chat_reply import cut
from embedserve.api.chat_translation import OllamaAnswer, joined, to_openai
from embedserve.bootstrap.chats import open_upstreams
from embedserve.errors import StartupError
from embedserve.settings import read_settings
from tests.llm_double import MODELS, language_models

KEY = "sk-0123456789abcdef"


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"chat_upstreams": "http://h/v1"}, "entry 1: write NAME=URL"),
        ({"chat_upstreams": "a=http://h/v1,b=h"}, "entry 2: it must be a URL"),
        ({"chat_upstreams": "a=http://h,a=http://i"}, "taken twice"),
        ({"upstream": "http://h", "chat_upstreams": "ollama=http://i"}, "EMBEDSERVE_UPSTREAM"),
        ({"chat_upstreams": "a=http://h", "chat_upstream_keys": f"b={KEY}"}, "a key for `b`"),
        ({"chat_upstreams": "a=http://h", "chat_upstream_keys": KEY}, "NAME=KEY"),
    ],
)
def test_upstreams_that_do_not_hold_stop_the_start(settings: dict[str, str], words: str) -> None:
    with pytest.raises(StartupError, match=re.escape(words)) as raised:
        open_upstreams(read_settings(settings, {}), keeps_keys=False)
    assert KEY not in raised.value.message


def test_models_are_found_on_whichever_server_has_them() -> None:
    async def found(url: str) -> list[tuple[str, str]]:
        settings = {"upstream": url, "chat_upstreams": f"cloud={url}/v1"}
        upstreams = open_upstreams(read_settings(settings, {}), keeps_keys=False)
        names = ("", "error:latest", "writer", "cloud/writer", "cloud/unlisted")
        told = [await upstreams.find(name) for name in names]
        listed = [one.listed for one in upstreams.models()]
        await upstreams.close()
        assert not any("embed" in one for one in listed), "they write no text"
        assert len(listed) == 2 * len(MODELS)
        return [(one.upstream.name, one.model) for one in told]

    with language_models() as theirs:
        assert asyncio.run(found(theirs.url)) == [
            ("ollama", "writer:latest"),
            ("ollama", "error:latest"),
            ("cloud", "writer"),
            ("cloud", "writer"),
            ("cloud", "unlisted"),
        ]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_streams_are_cut_at_their_ends_however_they_come(size: int) -> None:
    stream = b"data: 1\n\ndata: 2\r\n\r\n\n\ndata: 3"

    async def pieces() -> list[bytes]:
        async def parts() -> Any:  # noqa: ANN401
            for start in range(0, len(stream), size):
                yield stream[start : start + size]

        return [one async for one in cut(parts(), (b"\n\n", b"\r\n\r\n"))]

    assert asyncio.run(pieces()) == [b"data: 1\n\n", b"data: 2\r\n\r\n", b"\n\n", b"data: 3"]


def test_ollamas_chat_is_translated_for_openais_api() -> None:
    call = {"function": {"name": "look_up", "arguments": {"word": "a"}}}
    png = "iVBORw0KGgoAAAANSUhEUg=="
    messages: list[dict[str, Any]] = [
        {"role": "user", "content": "See", "images": [png]},
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "content": "found", "tool_name": "look_up"},
    ]
    fields = Fields(
        {
            "options": {"temperature": 0.1, "num_predict": 9, "num_ctx": 4},
            "format": {"type": "object"},
            "tools": [{"type": "function"}],
            "keep_alive": "5m",
        }
    )
    body = to_openai(fields, "m", messages, is_streamed=False)
    picture = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{png}"}}
    assert body["messages"][0]["content"] == [{"type": "text", "text": "See"}, picture]
    [called] = body["messages"][1]["tool_calls"]
    assert called["function"] == {"name": "look_up", "arguments": '{"word":"a"}'}
    assert body["messages"][2]["tool_call_id"] == called["id"]
    assert (body["temperature"], body["max_tokens"]) == (0.1, 9)
    assert body["response_format"]["json_schema"]["schema"] == {"type": "object"}
    assert not {"num_ctx", "keep_alive", "options"} & set(body)


def test_an_openai_answer_is_read_as_ollamas() -> None:
    reader = OllamaAnswer("rag/x")
    message = {"content": "Hi", "reasoning_content": "Hm"}
    call = {"id": "1", "function": {"name": "f", "arguments": '{"a": 1}'}}
    whole = {
        "choices": [{"message": {**message, "tool_calls": [call]}, "finish_reason": "length"}],
        "usage": {"prompt_tokens": 3, "completion_tokens": 2},
    }
    answer = joined([*reader.objects(whole), *reader.last()])
    assert answer["message"]["content"] == "Hi"
    assert answer["message"]["thinking"] == "Hm"
    assert answer["message"]["tool_calls"] == [{"function": {"name": "f", "arguments": {"a": 1}}}]
    assert (answer["done"], answer["done_reason"], answer["eval_count"]) == (True, "length", 2)
