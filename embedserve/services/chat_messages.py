"""What a conversation asks, and where the passages that answer it go. Pure functions.

Messages are JSON as clients send it, OpenAI's or Ollama's: nothing of them is read but roles and
texts, and nothing is changed but the last turn of the user.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

Message = dict[str, Any]

TASK = "### Task:"
"""How Open WebUI begins what it asks a model behind the user's back: titles, tags, queries."""
QUESTION_CHARS = 1_000
"""Of a longer message its beginning and its end are looked for: questions stand there."""
SHORT_WORDS = 6
"""A question with fewer may lean on the one before it ("and in winter?")."""

_CODE = re.compile(r"^(```|~~~).*?^\1[^\n]*$", re.DOTALL | re.MULTILINE)
_CONTEXT_END = "</context>"
_CONTEXT = re.compile(r"<context>(.*)</context>", re.DOTALL)
_NUMBER = re.compile(r'<source id="(\d{1,4})"')
_QUERY_TAG = re.compile(r"</?user_query>")
_BLANKS = re.compile(r"\s+")


def last_user_turn(messages: Sequence[object]) -> int | None:
    """Return the place of the last message of the user that has a text."""
    for place in range(len(messages) - 1, -1, -1):
        message = messages[place]
        if isinstance(message, dict) and message.get("role") == "user" and text_of(message):
            return place
    return None


def text_of(message: Mapping[str, Any]) -> str:
    """Return the text of a message, be it one or in parts."""
    content = message.get("content")
    if isinstance(content, str):
        return content.strip()
    if not isinstance(content, list):
        return ""
    texts = (part.get("text") for part in content if isinstance(part, dict))
    return "\n".join(text for text in texts if isinstance(text, str)).strip()


def is_task(messages: Sequence[object], *, header: str, is_streamed: bool) -> bool:
    """Tell whether Open WebUI asks for itself: by its header, or by the words that it uses.

    Its own context for a user's question begins with the same words, but is asked for as a stream.
    """
    if header.strip() and "{" not in header:
        return True
    asked = [one for one in messages if isinstance(one, dict) and one.get("role") != "system"]
    return len(asked) == 1 and not is_streamed and text_of(asked[0]).startswith(TASK)


def questions_of(messages: Sequence[object]) -> tuple[str, ...]:
    """Return ways to ask what the last turn of the user asks; none where there is no such turn.

    A short one may lean on the turn before it, so it is asked alone and together with that.
    """
    place = last_user_turn(messages)
    if place is None:
        return ()
    ways = _condensed(_said(messages[place]))
    before = last_user_turn(messages[:place])
    if before is None or len(ways) > 1 or len(ways[0].split()) >= SHORT_WORDS:
        return ways
    return (*ways, f"{_condensed(_said(messages[before]))[-1]} {ways[0]}")


def with_context(messages: Sequence[Any], context: str) -> list[Any]:
    """Return the messages with `context` before the text of the last turn of the user."""
    place = last_user_turn(messages)
    if place is None:
        raise ValueError("This is a bug: there is no turn of the user.")
    turn = dict(messages[place])
    content = turn["content"]
    if isinstance(content, str):
        turn["content"] = context + content
    else:
        turn["content"] = [{"type": "text", "text": context}, *content]
    return [*messages[:place], turn, *messages[place + 1 :]]


def is_begun(messages: Sequence[object]) -> bool:
    """Tell whether the answer to the last turn of the user has begun: a tool was called, say."""
    place = last_user_turn(messages)
    return place is not None and place < len(messages) - 1


def numbers_taken(messages: Sequence[object]) -> int:
    """Return how many sources Open WebUI has numbered itself, beside the user's last turn.

    It lists its own before ours, and takes a number in the answer for a place in that list.
    """
    place = last_user_turn(messages)
    texts = [
        text_of(one)
        for at, one in enumerate(messages)
        if isinstance(one, dict) and (at == place or one.get("role") == "system")
    ]
    # Before its context it explains how to cite, with a number as an example.
    own = (match[1] for text in texts if TASK in text for match in _CONTEXT.finditer(text))
    return max((int(match[1]) for text in own for match in _NUMBER.finditer(text)), default=0)


def _said(message: Any) -> str:  # noqa: ANN401  JSON
    """Return what the user wrote, without what Open WebUI wrote around it."""
    text = text_of(message)
    if text.startswith(TASK) and _CONTEXT_END in text:
        own = _QUERY_TAG.sub("", text.rpartition(_CONTEXT_END)[2]).strip()
        return own or text
    return text


def _condensed(text: str) -> tuple[str, ...]:
    """Return the text without code and blanks; of a long one its beginning and its end."""
    short = _BLANKS.sub(" ", _CODE.sub(" ", text)).strip() or _BLANKS.sub(" ", text).strip()
    if len(short) <= QUESTION_CHARS:
        return (short,)
    half = QUESTION_CHARS // 2
    return short[:half].rpartition(" ")[0] or short[:half], short[-half:].partition(" ")[
        2
    ] or short[-half:]
