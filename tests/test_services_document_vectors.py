"""Files that are read at once have no text embedded twice."""

from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from numpy.typing import NDArray

from embedserve.engine.encoder import Encoder
from embedserve.services.coming_vectors import MOST_TEXTS, ComingVectors, pass_on
from embedserve.services.document_vectors import DocumentVectors
from embedserve.services.embedded_text import text_hash
from embedserve.services.interruption import Interruption
from embedserve.services.token_budget import TokenBudget
from embedserve.store.catalog import Catalog
from embedserve.types import Chunk, Index, Vectors
from tests.store_samples import catalog_with_index, unit_vectors, wait_until

House = tuple[Catalog, Index, str]


class SlowEncoder:
    """Keeps what it is given until the test resolves it."""

    def __init__(self) -> None:
        self.spec = SimpleNamespace(document_prompt="")
        self.given: list[tuple[list[str], Future[Vectors]]] = []

    def offsets(self, texts: Sequence[str]) -> list[NDArray[np.int64]]:
        return [np.empty((0, 2), dtype=np.int64) for _ in texts]

    def tokenize(self, texts: Sequence[str]) -> list[SimpleNamespace]:
        return [SimpleNamespace(text=text, ids=[1, 2, 3]) for text in texts]

    def submit(self, texts: Sequence[SimpleNamespace], *, lane: str) -> "Future[Vectors]":
        future: Future[Vectors] = Future()
        self.given.append(([one.text for one in texts], future))
        return future

    def resolve(self, number: int) -> None:
        texts, future = self.given[number]
        future.set_result(np.concatenate([np.empty((0, 8), np.float32), *map(vector_of, texts)]))


def vector_of(text: str) -> Vectors:
    return unit_vectors(1, seed=int(text_hash(text)[:8], 16))


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    with catalog_with_index(tmp_path) as opened:
        yield opened


def vectors_of_job(house: House, encoder: SlowEncoder) -> DocumentVectors:
    catalog, index, job = house
    return DocumentVectors(
        catalog,
        cast(Encoder, encoder),
        index,
        budget=TokenBudget(prefix=9, chunk=9),
        job_id=job,
        interruption=Interruption(lambda: False, lambda: False),
    )


def embed(vectors: DocumentVectors, texts: list[str]) -> Any:  # noqa: ANN401  the future's result
    chunks = [Chunk(n, text, 0, len(text)) for n, text in enumerate(texts)]
    return vectors.embed("", chunks, lambda _: None)


@pytest.mark.parametrize("is_failing", [False, True])
def test_a_text_of_two_files_is_embedded_for_the_first(house: House, is_failing: bool) -> None:
    encoder = SlowEncoder()
    vectors = vectors_of_job(house, encoder)
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(embed, vectors, ["a", "both"])
        wait_until(lambda: len(encoder.given) == 1, within_s=20)
        second = pool.submit(embed, vectors, ["both", "c"])
        wait_until(lambda: len(encoder.given) == 2, within_s=20)
        assert [texts for texts, _ in encoder.given] == [["a", "both"], ["c"]]
        encoder.resolve(1)
        if is_failing:  # then the second file has the text embedded for itself
            encoder.given[0][1].set_exception(ValueError("as the test asked"))
            wait_until(lambda: len(encoder.given) == 3, within_s=20)
            encoder.resolve(2)
            with pytest.raises(ValueError, match="as the test asked"):
                first.result(20)
        else:
            encoder.resolve(0)
            assert first.result(20).new_hashes == (text_hash("a"), text_hash("both"))
        found = second.result(20)
        assert found.new_hashes == (text_hash("c"), text_hash("both"))
        assert np.array_equal(found.vectors, np.concatenate([vector_of("c"), vector_of("both")]))
        assert found.work.chunks_embedded == 1


def test_what_was_given_up_or_is_long_ago_is_claimed_again() -> None:
    coming = ComingVectors()
    first = coming.claim(["a", "b"])
    assert (first.own, first.others) == (("a", "b"), {})
    computed: Future[Vectors] = Future()
    pass_on(computed, first.rows)
    assert coming.claim(["a", "c"]).own == ("c",)
    computed.cancel()
    computed.set_running_or_notify_cancel()
    assert coming.claim(["a"]).own == ("a",)
    coming.claim([str(number) for number in range(MOST_TEXTS)])
    assert coming.claim(["a"]).own == ("a",)
