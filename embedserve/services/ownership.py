"""Whose model a name means, where an upstream serves models too: ours are those installed here."""

from pathlib import Path

from embedserve.errors import InvalidNameError, ModelError, ModelNotFoundError
from embedserve.models.installed import resolve
from embedserve.models.library import find_known
from embedserve.models.names import parse_name


class Ownership:
    """Answers for the models of one home; reads its folder each time."""

    def __init__(self, models_folder: Path) -> None:
        self._models_folder = models_folder

    def is_ours(self, name: str) -> bool:
        """Tell whether the model is installed here, in whatever state."""
        try:
            resolve(self._models_folder, name)
        except (InvalidNameError, ModelNotFoundError):
            return False
        except ModelError:
            return True  # damaged, which ours to say
        return True

    def is_pulled_here(self, name: str) -> bool:
        """Tell whether a pull of that name is ours: of a model that is installed, or known here."""
        try:
            return find_known(parse_name(name)) is not None or self.is_ours(name)
        except InvalidNameError:
            return False

    def key(self, name: str) -> str:
        """Return what spellings of one name share; a name outside the grammar is its own."""
        try:
            return "/".join(parse_name(name).key)
        except InvalidNameError:
            return name
