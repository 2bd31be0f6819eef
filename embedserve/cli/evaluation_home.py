"""The home in which sets are evaluated: one that is kept, or one that ends with the command."""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from embedserve.bootstrap.sources import read_all
from embedserve.cli.client import Client, connect
from embedserve.cli.console import errors
from embedserve.errors import ModelError, ModelNotFoundError, NotFoundError
from embedserve.models import installed
from embedserve.models.manifest import MANIFEST_FILE
from embedserve.models.names import parse_name, split_recipe


@contextmanager
def evaluation_client(home: Path | None, model: str) -> Iterator[Client]:
    """Give a client of the home to evaluate in, which has the model.

    Without a home it is a temporary one. A home that lacks the model takes it from the one that
    commands use by default. Raises ModelNotFoundError where that lacks it too.
    """
    with tempfile.TemporaryDirectory(prefix="embedserve-eval-") as temporary:
        folder = (home or Path(temporary)).expanduser().resolve()
        _take_model(folder / "models", read_all({}).settings.home / "models", model)
        with connect(folder, is_long=True, is_apart=True) as client:
            yield client


def models_of(client: Client, model: str, recipes: Sequence[str]) -> list[str]:
    """Return the names of a model in each recipe, pulled where it is not installed yet."""
    if not recipes:
        return [model]
    name = parse_name(model)
    base = name.display.rpartition(":")[0]
    tag = split_recipe(name.tag)[0]
    found = []
    for recipe in recipes:
        wanted = f"{base}:{recipe}" if tag == "latest" else f"{base}:{tag}-{recipe}"
        if _recipe_of(client, model) == recipe:
            wanted = model
        elif _recipe_of(client, wanted) is None:
            errors.print(f"pulling {wanted}")
            for step in client.lines("api", "pull", body={"model": wanted}):
                if "error" in step:
                    raise ModelError(str(step["error"]))
        found.append(wanted)
    return found


def _recipe_of(client: Client, model: str) -> str | None:
    try:
        facts = client.post("api", "show", body={"model": model})["embedserve"]
    except NotFoundError:
        return None
    return str(facts["recipe"])


def _take_model(folder: Path, default: Path, model: str) -> None:
    """Give a home the files of a model that another home has."""
    try:
        installed.resolve(folder, model)
        return
    except ModelNotFoundError:
        found = installed.resolve(default, model)
    target = folder / found.folder.relative_to(default)
    target.mkdir(parents=True, exist_ok=True)
    # The manifest last: with it the model is installed.
    for file in (*found.manifest.files, MANIFEST_FILE):
        installed.link_or_copy(found.folder / file, target / file)
