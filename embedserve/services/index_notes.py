"""What a user of an index has to know before its vectors or its full text are relied on."""

from embedserve.engine.encoder import Encoder
from embedserve.errors import ConflictError
from embedserve.services.viewing import sight_of
from embedserve.store.catalog import Catalog
from embedserve.types import Index


def lexical_warnings(catalog: Catalog, index: Index) -> list[str]:
    """Return what a user of full-text search has to know: that chunks are not in it yet."""
    waiting = catalog.lexical.pending(index.id)
    if not waiting:
        return []
    count = "Some" if sight_of(index).is_partial else waiting
    return [f"{count} chunks are not in the full text yet; only vectors find them."]


def check_same_artefact(index: Index, encoder: Encoder) -> None:
    """Raise ConflictError when the installed model is not the one that filled the index."""
    if encoder.spec.artefact != index.artefact:
        spec = encoder.spec
        raise ConflictError(
            f"Index `{index.name}` holds vectors of another build of `{index.model}` "
            f"({index.artefact[:12]}) than the one that is installed now (recipe {spec.recipe} on "
            f"{spec.engine}, {spec.artefact[:12]}); the two are never mixed. Pull the former one "
            "again with its `--recipe` and `--engine`, or have the index embedded anew: "
            f"`embedserve index reembed {index.name}`."
        )
