"""What both dialects' chats ask for: whose model, which turn, and how to look for passages."""

from collections.abc import Mapping
from typing import Any

from fastapi import Request
from pydantic import Field, ValidationError

from embedserve.api.body import Fields
from embedserve.api.hot import timeout_of
from embedserve.api.replies import own_address
from embedserve.api.search import QueryBody
from embedserve.errors import InvalidRequestError
from embedserve.services.chat import ChatTurn
from embedserve.services.chat_messages import is_task
from embedserve.services.chat_names import parse_chat_name
from embedserve.services.search_request import SearchRequest

OURS = ("model", "messages", "rag")
"""Fields that upstreams get otherwise, or not at all."""
TASK_HEADER = "x-openwebui-task"
"""Set in Open WebUI to `{{TASK}}`: empty where a user asks."""


class RagBody(QueryBody):
    """The field `rag`: whatever a query may say, and whether to answer without evidence."""

    refuse: bool | None = Field(
        default=None, description="Refuse a question without evidence; else as the index says."
    )

    def search(self, timeout_s: float | None) -> SearchRequest:
        """Return how to look; without queries where the messages are to be asked."""
        if self.query is None and self.queries is None:
            return self.model_copy(update={"queries": []}).request(timeout_s)
        return self.request(timeout_s)


def read_turn(request: Request, value: Mapping[str, Any], *, is_streamed: bool) -> ChatTurn:
    """Return what is asked; raise InvalidRequestError for a body that is no chat."""
    fields = Fields(value)
    messages = fields.raw("messages")
    if not isinstance(messages, list) or not all(isinstance(one, dict) for one in messages):
        raise InvalidRequestError("field `messages` must be an array of objects", field="messages")
    headers = request.headers
    rag = _read_rag(fields.raw("rag"))
    return ChatTurn(
        parse_chat_name(fields.text("model")),
        messages,
        search=rag.search(timeout_of(request.scope["headers"])),
        refuses=rag.refuse,
        is_task=is_task(messages, header=headers.get(TASK_HEADER, ""), is_streamed=is_streamed),
        base_url=own_address(request),
        authorization=headers.get("authorization", ""),
    )


def body_for(value: Mapping[str, Any], model: str, messages: object) -> dict[str, Any]:
    """Return the body for an upstream: as it came, but for the model and the messages."""
    kept = {name: item for name, item in value.items() if name.lower() not in OURS}
    return {"model": model, "messages": messages, **kept}


def _read_rag(value: object) -> RagBody:
    if value is None:
        return RagBody()
    try:
        return RagBody.model_validate(value)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(("rag", *(str(part) for part in first["loc"])))
        known = ", ".join(f"`{field}`" for field in RagBody.model_fields)
        raise InvalidRequestError(
            f"Field `{name}`: {first['msg']}. The fields of `rag` are {known}.", field="rag"
        ) from error
