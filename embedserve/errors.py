"""Every error that embedserve raises on purpose and that may reach a user.

Rooms keep signals of their own (a worker that died, an interrupted job) to themselves.

    EmbedserveError
    ├── InvalidRequestError          the caller's fault, with a way out
    │   ├── InvalidNameError           a model or index name outside its grammar
    │   ├── InputTooLongError          text over the model's length with truncation refused
    │   ├── TooLargeError              more texts or bytes than one request may carry
    │   └── DefinitionError            an index definition (TOML or body) that does not hold
    ├── NotFoundError
    │   ├── ModelNotFoundError         not installed
    │   ├── IndexNotFoundError
    │   ├── JobNotFoundError
    │   ├── DocumentNotFoundError      no such document in the index
    │   └── PathNotFoundError          nothing to ingest at that path
    ├── AccessError                  the request does not show who asks
    │   └── KeyMissingError            the server has API keys, and the request has none
    ├── ForbiddenError               who asks may not see or change this
    ├── PathNotAllowedError          outside the allowed roots
    ├── ConflictError                fights with what exists
    ├── OverloadedError              refused early; come back later
    ├── DeadlineError                not done within the time that the request had
    ├── ModelError                   a model that cannot be fetched, exported or trusted
    │   ├── NotFiniteError             vectors of NaN or infinity
    │   └── TextFailedError            one text that the engine could not run
    ├── ExtractionError              one file that could not be turned into text
    ├── VectorStoreError             Chroma is down or does not answer as it should
    │   ├── VectorStoreRefusedError      it answers questions, and stores nothing
    │   └── VectorStoreUnreachableError  no answer came: nothing is known of what it holds
    ├── UpstreamError                a server that answers for us cannot be reached, or broke off
    │   └── UpstreamSilentError        it took longer than it may
    ├── CatalogError                 the catalog cannot be opened or written
    │   └── CatalogUnavailableError      not now: its disk is full, read-only or held by another
    └── StartupError                 the server cannot start: settings, port
        └── HomeLockedError            another process owns the home (store/home_lock.py)

Messages say what happened to what (in backquotes) and end with what to do next.
`api/errors.py` holds the one table from these classes to HTTP statuses.
"""

from collections.abc import Sequence


class EmbedserveError(Exception):
    """Base of every deliberate error; `str(error)` is fit to show to a user."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class InvalidRequestError(EmbedserveError):
    """The request cannot be carried out as it stands.

    `field`: the one of its fields that is at fault, where it is one alone.
    `positions`: the texts that are at fault, where the others are not.
    """

    def __init__(
        self, message: str, *, field: str | None = None, positions: Sequence[int] = ()
    ) -> None:
        super().__init__(message)
        self.field = field
        self.positions = tuple(positions)


class InvalidNameError(InvalidRequestError):
    """A name that its grammar does not allow."""


class InputTooLongError(InvalidRequestError):
    """A text exceeds the model's length and the caller refused truncation."""


class TooLargeError(InvalidRequestError):
    """A request carries more than one request may."""


class DefinitionError(InvalidRequestError):
    """An index definition with an unknown key or an impossible value."""


class NotFoundError(EmbedserveError):
    """Something named in the request does not exist."""


class ModelNotFoundError(NotFoundError):
    """The model is not installed."""

    def __init__(self, name: str, installed: Sequence[str] = ()) -> None:
        # Clients know Ollama's words for it; what is installed of the same model follows them.
        others = ", ".join(f"`{other}`" for other in installed)
        hint = f" (installed of this model: {others})" if others else ""
        super().__init__(f'model "{name}" not found, try pulling it first{hint}')
        self.name = name
        self.hint = hint


class ChatModelNotFoundError(NotFoundError):
    """No index, or no language model behind it, has the name of a chat model."""


class IndexNotFoundError(NotFoundError):
    """No index has that name."""


class JobNotFoundError(NotFoundError):
    """No job has that id."""


class DocumentNotFoundError(NotFoundError):
    """The index has no document of that name."""


class PathNotFoundError(NotFoundError):
    """A path to ingest does not exist."""


class AccessError(EmbedserveError):
    """The request does not show who asks."""


class KeyMissingError(AccessError):
    """The server has API keys and the request carries none."""


class ForbiddenError(EmbedserveError):
    """Whoever asks may not see this, or not change it."""


class PathNotAllowedError(EmbedserveError):
    """A path lies outside the roots that may be ingested."""


class ConflictError(EmbedserveError):
    """The request contradicts what is stored already."""


BUSY = "server busy, please try again.  maximum pending requests exceeded"
"""Ollama's words, its two blanks included: clients compare them."""


class OverloadedError(EmbedserveError):
    """The queue is full; nothing of the request was done.

    `retry_after_s`: when there will be room again, as far as that can be told.
    """

    def __init__(self, message: str, *, retry_after_s: int | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class DeadlineError(EmbedserveError):
    """The request's time was over before its vectors were there; what had not run was dropped."""


class ModelError(EmbedserveError):
    """A model could not be fetched, exported, verified or run."""


class NotFiniteError(ModelError):
    """A model gave vectors that are no numbers, to the texts at `positions`."""

    def __init__(self, positions: Sequence[int]) -> None:
        super().__init__("embedding contains NaN or Inf values")
        self.positions = tuple(positions)


class TextFailedError(ModelError):
    """The engine could not run one text, though it was alone; the others it could."""

    def __init__(self, reason: str, positions: Sequence[int]) -> None:
        named = ", ".join(str(position) for position in positions)
        super().__init__(f"Text {named} could not be embedded: {reason}")
        self.reason = reason
        self.positions = tuple(positions)

    def at(self, positions: Sequence[int]) -> "TextFailedError":
        """Return the same for a caller to whom the text stands elsewhere, or several times."""
        return TextFailedError(self.reason, positions)


class ExtractionError(EmbedserveError):
    """One file could not be turned into text; the other files go on.

    `code` is stable and machine-readable (`encrypted`, `timed_out`, ...); `stage` is where it
    happened (`scan`, `open`, `extract`, `chunk`, `embed`); `hint` is what a person can do;
    `is_retryable` says whether the same bytes may succeed on a later run.
    """

    def __init__(
        self, code: str, message: str, *, stage: str, hint: str = "", is_retryable: bool = False
    ) -> None:
        super().__init__(message)
        self.code = code
        self.stage = stage
        self.hint = hint
        self.is_retryable = is_retryable


class VectorStoreError(EmbedserveError):
    """The vector index cannot answer; the catalog still can."""


class VectorStoreRefusedError(VectorStoreError):
    """It answered a question just now, and then did not store what it was given."""


class VectorStoreUnreachableError(VectorStoreError):
    """No answer came: the vector index is down, starting, or slower than the caller waits."""


class UpstreamError(EmbedserveError):
    """An upstream gave no answer, or not all of it."""


class UpstreamSilentError(UpstreamError):
    """An upstream was waited for in vain."""


class CatalogError(EmbedserveError):
    """The catalog cannot be opened or written."""


class CatalogUnavailableError(CatalogError):
    """The system refuses to write or read the catalog now; nothing is wrong with what it holds."""


class StartupError(EmbedserveError):
    """The server cannot start as asked."""
