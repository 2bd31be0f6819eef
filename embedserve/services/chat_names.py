"""Names of the models that answer from an index: `rag/INDEX` and `rag/INDEX@MODEL`.

`MODEL` is one of an upstream's, as it is called there, or `UPSTREAM/MODEL` where several have it.
"""

from dataclasses import dataclass

PREFIX = "rag/"
LATEST = ":latest"
"""What Ollama's clients add to a name without a tag."""


@dataclass(frozen=True)
class ChatName:
    """An index, and who answers from it."""

    index: str
    model: str = ""
    """Empty: the one that is the default of the index or of the server."""

    def __str__(self) -> str:
        return f"{PREFIX}{self.index}@{self.model}" if self.model else PREFIX + self.index

    @property
    def tagged(self) -> str:
        """Return the name as Ollama's lists show it."""
        return str(self) if ":" in str(self) else str(self) + LATEST


def is_chat_name(name: str) -> bool:
    """Tell whether a name is of an index's model, whether or not there is such an index."""
    return name.strip().startswith(PREFIX)


def parse_chat_name(name: str) -> ChatName:
    """Return what a name for which `is_chat_name` is true is of."""
    index, _, model = name.strip().removeprefix(PREFIX).partition("@")
    # An index's name holds no colon, so a tag there is what a client has added.
    return ChatName(index.removesuffix(LATEST), model)
