"""What a language model that invents nothing says: the beginning of the first passage it was given.

So an answer that is shown proves that passages arrived. Background tasks of a front end are
answered with the JSON that they ask for.
"""

import json
import re
from collections.abc import Sequence
from typing import Any

TASK = {
    "title": "Quoted from the documents",
    "tags": ["Documents"],
    "follow_ups": ["What else do the documents say about it?"],
    "queries": [],
}
NOTHING = "No passage was given."
WORDS = 24
"""Of a passage, so many are quoted."""

# Ours, between two marks: a line `[1] Title / Heading`, then the text. Open WebUI's: an element.
_PASSAGES = (
    re.compile(r"^\[1\] [^\n]*\n(.+?)(?=^\[\d+\] |^\w+ >>>)", re.MULTILINE | re.DOTALL),
    re.compile(r'^<context>.*?<source id="1"[^>]*>(.+?)</source>', re.MULTILINE | re.DOTALL),
)


def quote(messages: Sequence[dict[str, Any]]) -> tuple[str, ...]:
    """Return the answer to a conversation in pieces, as it is streamed."""
    texts = [_text(one) for one in messages]
    found = [match[1] for one in _PASSAGES for text in texts for match in one.finditer(text)]
    if not found:
        return (json.dumps(TASK) if texts[-1].startswith("### Task:") else NOTHING,)
    # Words alone: no heading or list of Markdown.
    words = [word for word in found[0].split() if any(map(str.isalnum, word))][:WORDS]
    return ("> ", *(f"{word} " for word in words), "[1]")


def _text(message: dict[str, Any]) -> str:
    content = message.get("content") or ""
    return content if isinstance(content, str) else content[0]["text"]
