"""A conversation about an index: what is looked for, what a language model is given, who is asked.

How a dialect writes it, and the model's answer itself, are the adapters'.
"""

import asyncio
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from embedserve.errors import (
    ChatModelNotFoundError,
    IndexNotFoundError,
    InvalidRequestError,
    NotFoundError,
    UpstreamError,
)
from embedserve.services.chat_answer import alone
from embedserve.services.chat_messages import (
    is_begun,
    numbers_taken,
    questions_of,
    with_context,
)
from embedserve.services.chat_names import ChatName
from embedserve.services.chat_passages import CitedDocument, by_document, fenced, mark_of
from embedserve.services.chat_prompts import Prompt, Prompts
from embedserve.services.definitions import Chat, IndexDefinition
from embedserve.services.document_pages import DocumentPages
from embedserve.services.indexes import IndexService
from embedserve.services.search import SearchService
from embedserve.services.search_request import Hit, SearchRequest
from embedserve.services.upstreams import UpstreamModel, Upstreams
from embedserve.types import Index


@dataclass(frozen=True)
class ChatTurn:
    """What a client sends to a model that answers from an index."""

    name: ChatName
    messages: Sequence[Any]
    """JSON as it came."""
    search: SearchRequest = field(default_factory=lambda: SearchRequest(()))
    """How to look; without queries, for what the messages ask."""
    refuses: bool | None = None
    """Whether to answer at all where nothing is found; None: as the index says."""
    is_task: bool = False
    """The client asks for itself: nothing is looked for."""
    base_url: str = ""
    """Where links to this server lead."""
    authorization: str = ""
    """What the client said of itself, for upstreams that have no key of their own here."""


@dataclass(frozen=True)
class Grounded:
    """What became of a turn: messages for a language model, or an answer without one."""

    messages: Sequence[Any]
    prompt: Prompt
    target: UpstreamModel | None = None
    documents: tuple[CitedDocument, ...] = ()
    """What may be cited, as it is numbered in the messages."""
    status: str = ""
    """What was found, in words; empty: nothing was looked for."""
    text: str | None = None
    """The answer, where no language model is asked."""
    goes_on: bool = False
    """The answer has begun in a message before: a tool was called, or it was cut."""


@dataclass(frozen=True)
class ChatOptions:
    """What holds for every index that does not say otherwise."""

    prompts: Prompts = field(default_factory=Prompts)
    model: str = ""
    listed_models: int = 20


@dataclass(frozen=True)
class ChatModel:
    """One of the names that lists show."""

    name: ChatName
    created_at: str
    """Of the index, ISO 8601."""

    @property
    def created(self) -> int:
        """Return the same in seconds since 1970."""
        return int(datetime.fromisoformat(self.created_at).timestamp())


@dataclass(frozen=True)
class ChatModels:
    """All of them, and what keeps some from being shown."""

    models: list[ChatModel]
    problem: UpstreamError | None = None


class ChatService:
    """Ground conversations in indexes."""

    def __init__(
        self,
        indexes: IndexService,
        search: SearchService,
        pages: DocumentPages,
        upstreams: Upstreams,
        options: ChatOptions,
    ) -> None:
        self.upstreams = upstreams
        self._indexes = indexes
        self._search = search
        self._pages = pages
        self._options = options
        self._secret = secrets.token_bytes(32)

    async def close(self) -> None:
        """Close the connections to upstreams."""
        await self.upstreams.close()

    async def models(self, authorization: str = "", *, asks: bool = True) -> ChatModels:
        """List the names that can be asked, each index with the first models of the upstreams.

        Without `asks`, as the upstreams were when they were asked last.
        """
        problems = await self.upstreams.refresh(authorization) if asks else []
        theirs = self.upstreams.models()[: self._options.listed_models]
        indexes = await asyncio.to_thread(self._all)
        models = [
            ChatModel(ChatName(index.name, model), index.created_at)
            for index in indexes
            for model in ("", *(one.listed for one in theirs))
        ]
        return ChatModels(models, problems[0] if problems else None)

    async def find(self, name: ChatName) -> ChatModel:
        """Return what is known of a name; raises NotFoundError where there is no such index."""
        index, _ = await asyncio.to_thread(self._find, name)
        return ChatModel(name, index.created_at)

    async def target(self, name: ChatName, authorization: str = "") -> UpstreamModel | None:
        """Return the language model behind a name; None: there is none, passages are the answer.

        Raises NotFoundError, and UpstreamError where it may be on an upstream that is away.
        """
        _, definition = await asyncio.to_thread(self._find, name)
        return await self._target(name, definition.chat, authorization)

    async def ground(self, turn: ChatTurn) -> Grounded:
        """Look for what a turn asks, and put it before the question.

        Raises NotFoundError for a name, UpstreamError as `target` does, InvalidRequestError where
        nobody could answer, and what a search raises.
        """
        index, definition = await asyncio.to_thread(self._find, turn.name)
        target = await self._target(turn.name, definition.chat, turn.authorization)
        prompt = self._options.prompts.of(definition.chat.language or definition.language)
        queries = () if turn.is_task else turn.search.queries or questions_of(turn.messages)
        if not queries:
            if target is None:
                raise InvalidRequestError(
                    f"`{turn.name}` has no language model behind it (EMBEDSERVE_CHAT_UPSTREAMS): "
                    "it answers questions with passages, and has been asked none.",
                    field="messages",
                )
            return Grounded(turn.messages, prompt, target)
        asked = replace(turn.search, queries=queries)
        if asked.min_score is None:
            asked = replace(asked, min_score=definition.chat.min_score)
        result = await self._search.search(index.name, asked)
        documents = self._cited(result.hits, result.index, turn)
        refuses = definition.chat.refuse if turn.refuses is None else turn.refuses
        return self._grounded(turn, (prompt, target), documents, refuses=refuses)

    def _grounded(
        self,
        turn: ChatTurn,
        answering: tuple[Prompt, UpstreamModel | None],
        documents: tuple[CitedDocument, ...],
        *,
        refuses: bool,
    ) -> Grounded:
        prompt, target = answering
        names = {"index": turn.name.index, "documents": str(len(documents))}
        status = prompt.fill(prompt.found if documents else prompt.not_found, **names)
        known = Grounded(
            turn.messages, prompt, target, documents, status, goes_on=is_begun(turn.messages)
        )
        if not documents and (refuses or target is None):
            return replace(known, text=prompt.fill(prompt.refusal, **names))
        if target is None:
            return replace(known, text=alone(prompt.fill(prompt.alone, **names), documents))
        if not documents:
            context = prompt.fill(prompt.no_evidence, **names)
        else:
            mark = mark_of(documents, self._secret)
            passages = fenced(documents, mark)
            context = prompt.fill(prompt.passages, **names, mark=mark, passages=passages)
        return replace(known, messages=with_context(turn.messages, context.lstrip("\n")))

    def _cited(self, hits: list[Hit], index: Index, turn: ChatTurn) -> tuple[CitedDocument, ...]:
        def link(hit: Hit) -> str:
            return turn.base_url + self._pages.permalink(index, hit.passage)

        return by_document(hits, link, first=numbers_taken(turn.messages) + 1)

    async def _target(self, name: ChatName, chat: Chat, authorization: str) -> UpstreamModel | None:
        if not self.upstreams.all:
            if name.model:
                raise ChatModelNotFoundError(
                    f'model "{name}" not found: no upstream is set (EMBEDSERVE_CHAT_UPSTREAMS, '
                    f"EMBEDSERVE_UPSTREAM). `rag/{name.index}` answers with passages."
                )
            return None
        wanted = name.model or chat.model or self._options.model
        return await self.upstreams.find(wanted, authorization)

    def _find(self, name: ChatName) -> tuple[Index, IndexDefinition]:
        try:
            sight = self._indexes.see(name.index)
        except IndexNotFoundError:
            known = ", ".join(f"`rag/{one}`" for one in self._indexes.names()[:20])
            raise ChatModelNotFoundError(
                f'model "{name}" not found: there is no index `{name.index[:80]}`. '
                f"There is {known or 'none yet'}."
            ) from None
        return sight.index, sight.definition

    def _all(self) -> list[Index]:
        found = []
        for name in self._indexes.names():
            try:
                found.append(self._indexes.see(name).index)
            except NotFoundError:  # deleted meanwhile
                continue
        return found
