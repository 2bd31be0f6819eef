"""Tables of plug-ins by name, loaded on first use. Knows nothing of what it loads."""

from difflib import get_close_matches
from importlib import import_module
from importlib.metadata import entry_points
from typing import Generic, TypeVar

from embedserve.errors import StartupError

T = TypeVar("T")


class Registry(Generic[T]):
    """Map names to `"module:attribute"`; third parties add theirs as entry points.

    A package that declares an entry point in the group `embedserve.<kind>` joins the table.
    """

    def __init__(self, kind: str, table: dict[str, str]) -> None:
        self.kind = kind
        self._table = table

    def names(self) -> list[str]:
        """List every name that `load` accepts."""
        return sorted(self._targets())

    def load(self, name: str) -> T:
        """Import and return what `name` stands for; raise StartupError for an unknown name."""
        targets = self._targets()
        if name not in targets:
            near = get_close_matches(name, targets, n=1)
            guess = f" Did you mean `{near[0]}`?" if near else ""
            known = ", ".join(sorted(targets))
            raise StartupError(f"Unknown {self.kind} `{name}`.{guess} Known: {known}.")
        module, _, attribute = targets[name].partition(":")
        loaded: T = getattr(import_module(module), attribute)
        return loaded

    def _targets(self) -> dict[str, str]:
        outside = entry_points(group=f"embedserve.{self.kind}")
        return {**{point.name: point.value for point in outside}, **self._table}
