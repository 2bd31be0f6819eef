"""The draft of one document that a job is at: opened when it is long enough to need one."""

import json
from collections.abc import Callable, Iterable, Iterator

from embedserve import __version__
from embedserve.ingest.chunk_stream import CutTo
from embedserve.services.document_vectors import WINDOW, Embedded
from embedserve.services.token_budget import TokenBudget
from embedserve.store.catalog import Catalog
from embedserve.types import Chunk, Draft, Extraction, Index


class Drafting:
    """Stage the windows of one document."""

    def __init__(
        self, catalog: Catalog, index: Index, *, job_id: str, path: str, origin: str
    ) -> None:
        self._catalog = catalog
        self._index = index
        self._job_id = job_id
        self._path = path
        self._origin = origin
        self.draft: Draft | None = None
        """None for a document of one window."""

    def open(self) -> Draft:
        """Return what a former life of the job has staged, or an empty draft."""
        self.draft = self._catalog.drafts.open(self._job_id, self._path, self._origin)
        return self.draft

    def windows(self, chunks: list[Chunk]) -> Iterator[CutTo]:
        """Yield the windows of a document that was cut as a whole."""
        done = self.open().chunks if len(chunks) > WINDOW else 0
        for first in range(done, len(chunks), WINDOW):
            window = chunks[first : first + WINDOW]
            yield CutTo(window, window[-1].end)

    def keeper(self, tell: Callable[[Draft], None]) -> Callable[[Embedded], None]:
        """Return what stages a window, and tells how much is staged then."""

        def keep(done: Embedded) -> None:
            draft = self.draft or self.open()
            self.draft = self._catalog.drafts.add(
                self._index, draft, done.part, job_id=self._job_id, work=done.work
            )
            tell(self.draft)

        return keep


def origin_of(extraction: Extraction, index: Index, budget: TokenBudget) -> str:
    """Name all that decides what the chunks of a document are, and what is embedded of them."""
    document = (extraction.sha256, extraction.kind, extraction.title)
    return json.dumps([__version__, *document, index.artefact, budget.chunk, budget.prefix])


def gathered(cuts: Iterable[CutTo]) -> Iterator[CutTo]:
    """Yield windows of enough chunks to be embedded together."""
    chunks: list[Chunk] = []
    end = 0
    for cut in cuts:
        chunks, end = chunks + cut.chunks, cut.end
        if len(chunks) >= WINDOW:
            yield CutTo(chunks, end)
            chunks = []
    if chunks:
        yield CutTo(chunks, end)
