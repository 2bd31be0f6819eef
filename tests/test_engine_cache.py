"""The cache of vectors: what it finds, what it lets go, what it counts."""

import threading

import numpy as np

from embedserve.engine.cache import VectorCache, key_of
from embedserve.types import Vectors

ARTEFACT = "a" * 64


def rows(count: int, first: int = 0) -> Vectors:
    return np.arange(first, first + count * 4, dtype=np.float32).reshape(count, 4)


def keys(*values: int) -> list[bytes]:
    return [key_of(ARTEFACT, np.array([value, 1])) for value in values]


def test_what_was_kept_is_found_by_its_key_only() -> None:
    cache = VectorCache(100_000)
    cache.keep(keys(1, 2), rows(2))
    one, two, none = cache.find(keys(1, 2, 3))
    assert one is not None
    assert two is not None
    assert (one == rows(2)[0]).all()
    assert (two == rows(2)[1]).all()
    assert none is None
    assert (cache.counts().hits, cache.counts().misses, cache.counts().entries) == (2, 1, 2)


def test_keys_differ_by_model_length_and_order() -> None:
    ids = np.array([1, 2, 3])
    all_keys = {
        key_of(ARTEFACT, ids),
        key_of("b" * 64, ids),
        key_of(ARTEFACT, ids[:2]),
        key_of(ARTEFACT, ids[::-1]),
        key_of(ARTEFACT, np.array([1, 2, 3 + 2**20])),
    }
    assert len(all_keys) == 5


def test_kept_rows_are_copies_that_nobody_can_change() -> None:
    cache = VectorCache(100_000)
    given = rows(1)
    cache.keep(keys(1), given)
    given[:] = 7
    [found] = cache.find(keys(1))
    assert found is not None
    assert (found == rows(1)[0]).all()
    assert not found.flags.writeable


def test_the_longest_unused_goes_when_bytes_run_out() -> None:
    cache = VectorCache(1_100)  # three entries
    cache.keep(keys(1, 2, 3), rows(3))
    assert cache.counts().entries == 3
    cache.find(keys(1))
    cache.keep(keys(4), rows(1))
    assert [row is not None for row in cache.find(keys(1, 2, 3, 4))] == [True, False, True, True]
    assert cache.counts().size_bytes <= 1_100


def test_without_room_nothing_is_kept() -> None:
    cache = VectorCache(0)
    assert not cache.is_on
    cache.keep(keys(1), rows(1))
    assert cache.find(keys(1)) == [None]
    assert cache.counts().size_bytes == 0


def test_size_is_right_after_many_threads() -> None:
    cache = VectorCache(20_000)

    def work(seed: int) -> None:
        random = np.random.default_rng(seed)
        for _ in range(200):
            wanted = keys(*random.integers(0, 100, 5).tolist())
            cache.find(wanted)
            cache.keep(wanted, rows(5))

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    counts = cache.counts()
    assert counts.size_bytes <= 20_000
    assert counts.hits + counts.misses == 4 * 200 * 5
    entry_bytes = 4 * 4 + 300 + len(keys(1)[0])
    assert counts.size_bytes == counts.entries * entry_bytes
