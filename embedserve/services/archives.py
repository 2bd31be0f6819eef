"""Indexes as archives: exported while everything goes on, imported whole or not at all."""

import json
import logging
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

from embedserve import __version__
from embedserve.engine.encoder import Encoder
from embedserve.errors import (
    CatalogUnavailableError,
    ConflictError,
    InvalidRequestError,
    ModelError,
    ModelNotFoundError,
    TooLargeError,
)
from embedserve.services.archive_format import (
    FORMAT,
    VERSION,
    ArchivedCounts,
    ArchivedIndex,
    Manifest,
    Writer,
    lines_of,
    npy_header,
)
from embedserve.services.archive_reader import Reader
from embedserve.services.archive_rows import check_rows
from embedserve.services.definitions import IndexDefinition, check_index_name, parse_definition
from embedserve.services.encoders import Encoders
from embedserve.services.index_worker import IndexWorker
from embedserve.services.indexes import IndexService
from embedserve.services.origins import Origin
from embedserve.store.catalog import Catalog
from embedserve.store.staging import Staging
from embedserve.store.transfer import Arrival, Counts, Snapshot
from embedserve.types import Index

logger = logging.getLogger(__name__)


class Upload:
    """An archive on its way in, in a file without a name: it goes with this process."""

    def __init__(self, folder: Path, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self._size = 0
        try:
            self.file: IO[bytes] = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115  `close`
        except OSError as error:
            raise CatalogUnavailableError(
                f"`{folder}` cannot be written: {error.strerror}."
            ) from error

    def write(self, part: bytes) -> None:
        """Take the next part; raise TooLargeError beyond the limit."""
        self._size += len(part)
        if self._size > self.limit_bytes:
            raise TooLargeError(
                f"The archive is larger than {self.limit_bytes} bytes "
                "(EMBEDSERVE_MAX_ARCHIVE_BYTES)."
            )
        try:
            self.file.write(part)
        except OSError as error:
            raise CatalogUnavailableError(
                f"The archive cannot be stored: {error.strerror}. Free some space in the home."
            ) from error

    def close(self) -> None:
        """Let the file go."""
        self.file.close()


class ArchiveService:
    """Write and read archives of indexes."""

    def __init__(
        self,
        catalog: Catalog,
        indexes: IndexService,
        encoders: Encoders,
        index_worker: IndexWorker,
        spool: tuple[Path, int],
    ) -> None:
        """`spool`: the folder for uploads, and the most bytes of one."""
        self._catalog = catalog
        self._indexes = indexes
        self._encoders = encoders
        self._worker = index_worker
        self._spool, self._limit_bytes = spool

    def export(self, name: str) -> Iterator[bytes]:
        """Return an archive of the index as it is now, in parts.

        Raises IndexNotFoundError, and ConflictError for one with chunks that have no vector.
        Until the last part is taken the catalog's log cannot be folded back beyond this moment.
        """
        index = self._indexes.find(name)
        with ExitStack() as stack:
            snapshot = stack.enter_context(self._catalog.transfer.snapshot(index.name))
            if not snapshot.has_every_vector():
                raise ConflictError(
                    f"Index `{name}` has chunks without their vector. Run `embedserve index check "
                    f"{name} --repair` first."
                )
            return self._parts(snapshot, stack.pop_all())

    def _parts(self, snapshot: Snapshot, stack: ExitStack) -> Iterator[bytes]:
        with stack:
            counts = snapshot.counts()
            writer = Writer()
            members = (
                ("documents.jsonl", lines_of(snapshot.documents()), True),
                ("chunks.jsonl", lines_of(snapshot.chunks()), True),
                (
                    "hashes.txt",
                    (f"{row.text_hash}\n".encode() for row in snapshot.vectors()),
                    False,
                ),
                ("vectors.npy", _npy(snapshot, counts), False),
            )
            for name, parts, deflates in members:
                yield from writer.member(name, parts, deflates=deflates)
            yield from writer.end(
                Manifest(
                    format=FORMAT,
                    version=VERSION,
                    program=__version__,
                    created_at=datetime.now(UTC).isoformat(timespec="seconds"),
                    index=self._archived(snapshot),
                    counts=ArchivedCounts(**vars(counts)),
                    files=writer.files,
                )
            )

    def _archived(self, snapshot: Snapshot) -> ArchivedIndex:
        index = snapshot.index
        try:
            spec = self._encoders.get(index.model).spec
            recipe, engine = spec.recipe, spec.engine
        except (ModelNotFoundError, ModelError):  # nothing of it is needed for the export
            recipe = engine = ""
        return ArchivedIndex(
            name=index.name,
            definition=index.definition,
            model=index.model,
            artefact=index.artefact,
            dimensions=index.dimensions,
            created_at=index.created_at,
            recipe=recipe,
            engine=engine,
            origin=snapshot.origin(),
        )

    def open_upload(self) -> Upload:
        """Return where to write an archive that is to be imported."""
        return Upload(self._spool, self._limit_bytes)

    def take(self, upload: Upload, name: str | None = None) -> Index:
        """Add the index of an uploaded archive, under its own name or another.

        Raises InvalidRequestError for an archive that does not hold, ConflictError for a taken
        name, a model that is not installed or another build of it, or another machine's vectors,
        and CatalogError. No index is changed then; vectors that were stored before a failure at
        the very end are as those that no chunk has any more.
        """
        reader = Reader(upload.file, limit_bytes=upload.limit_bytes)
        archived = reader.index
        definition = _definition(archived)
        encoder = self._matching_encoder(archived)
        name, origin = check_index_name(name or archived.name), _checked_origin(archived)
        with Staging(self._spool) as rows:
            check_rows(reader, rows, encoder, definition)
            arrival = Arrival(
                name=name,
                definition=definition.model_dump_json(),
                model=archived.model,
                artefact=archived.artefact,
                dimensions=archived.dimensions,
                origin=origin,
                rows=rows,
                vectors=reader.vectors,
            )
            index = self._catalog.transfer.add(arrival, is_same_origin=_is_same_origin)
        logger.info("index %s: imported", index.name)
        self._worker.wake()
        return index

    def _matching_encoder(self, archived: ArchivedIndex) -> Encoder:
        """Return the model of the vectors; refuse those that no installed one can be compared to.

        Raises ConflictError.
        """
        recipe = f" --recipe {archived.recipe}" if archived.recipe else ""
        engine = f" --engine {archived.engine}" if archived.engine else ""
        pull = f"`embedserve pull {archived.model}{recipe}{engine}`"
        try:
            encoder = self._encoders.get(archived.model)
        except ModelNotFoundError as error:
            raise ConflictError(
                f"The archive's vectors are of `{archived.model}`, which is not installed. "
                f"Pull it first: {pull}."
            ) from error
        spec = encoder.spec
        if (spec.artefact, spec.dimensions) != (archived.artefact, archived.dimensions):
            raise ConflictError(
                f"The archive's vectors are of another build of `{archived.model}` "
                f"({archived.artefact[:12]}) than the installed one ({spec.artefact[:12]}); "
                f"the two are never mixed. Pull that one: {pull}, or copy its folder below "
                "`models/` from the home of the export."
            )
        return encoder


def _npy(snapshot: Snapshot, counts: Counts) -> Iterator[bytes]:
    yield npy_header(counts.vectors, snapshot.index.dimensions)
    for row in snapshot.vectors():
        yield row.content


def _definition(archived: ArchivedIndex) -> IndexDefinition:
    """Return the definition; its sources are asked for again whenever a job runs.

    Whoever imports it decides whether they are watched here.
    """
    try:
        value = json.loads(archived.definition)
    except (ValueError, RecursionError) as error:
        raise InvalidRequestError("The archive's definition is not JSON.") from error
    definition = parse_definition(value, origin="The archive's definition")
    return definition.model_copy(update={"watch": False})


def _checked_origin(archived: ArchivedIndex) -> str | None:
    if archived.origin is None:
        return None
    try:
        origin = Origin.read(archived.origin)
        is_whole = origin.vector.shape == (archived.dimensions,)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise InvalidRequestError("The archive's origin cannot be read.") from error
    if not is_whole:
        raise InvalidRequestError("The archive's origin has a vector of another length.")
    return origin.write()


def _is_same_origin(one: str, other: str) -> bool:
    return Origin.read(one).vector_base64 == Origin.read(other).vector_base64
