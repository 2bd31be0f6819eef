"""What every engine promises, checked on each that is registered."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedserve.engine.backend import BACKENDS, Backend, BackendOptions, describe
from embedserve.engine.tokenizer import ModelTokenizer
from embedserve.errors import ModelError
from embedserve.models import fidelity, installed
from embedserve.services.models import encoder_spec
from embedserve.types import Arithmetic, TokenIds, Vectors
from tests.tiny_graph import DIMENSIONS, MAX_TOKENS, PAD, random_text, write_tiny_graph

OPTIONS = BackendOptions(
    "cpu", threads=2, arithmetic="f32", pad_token_id=PAD, max_tokens=MAX_TOKENS
)
THREADS = (1, 2, 3)
CPU_FEATURE = {"bf16": {"avx512_bf16", "avx_ne_convert"}, "f16": {"avx512_fp16", "avx_ne_convert"}}


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_graph(tmp_path_factory.mktemp("graph") / "tiny.onnx")


@pytest.fixture(scope="module", params=BACKENDS.names())
def engine(request: pytest.FixtureRequest) -> str:
    facts = describe(request.param)
    if not facts.is_available:
        pytest.skip(f"ENGINE NOT CHECKED: {facts.why_not}")
    return facts.name


@pytest.fixture(scope="module")
def by_threads(engine: str, graph: Path) -> Iterator[dict[int, Backend]]:
    """One backend for each number of callers at once."""
    loaded = {count: load(engine, graph, replace(OPTIONS, threads=count)) for count in THREADS}
    yield loaded
    for backend in loaded.values():
        backend.close()


def load(engine: str, path: Path, options: BackendOptions = OPTIONS) -> Backend:
    return BACKENDS.load(engine).load(path, options)


def flags_of_this_cpu() -> set[str]:
    return set(Path("/proc/cpuinfo").read_text(encoding="utf-8").split())


def run_grouped(backend: Backend, texts: list[TokenIds], size: int) -> Vectors:
    """Run texts in batches of up to `size` of one bucket; rows in the order of the texts."""
    rows = np.empty((len(texts), DIMENSIONS), dtype=np.float32)
    buckets = [backend.bucket(len(ids)) for ids in texts]
    for bucket in set(buckets):
        places = [place for place, own in enumerate(buckets) if own == bucket]
        for first in range(0, len(places), size):
            part = places[first : first + size]
            rows[part] = backend.run([texts[place] for place in part])
    return rows


def test_version_names_engine_and_release(engine: str) -> None:
    name, _, release = describe(engine).version.partition(" ")
    assert name == engine
    assert release[0].isdigit()


def test_rows_are_unit_vectors_of_float32(by_threads: dict[int, Backend]) -> None:
    for length in (1, 2, 8, 9, 63, 65, 97, MAX_TOKENS):
        rows = by_threads[1].run([random_text(length, seed) for seed in range(3)])
        assert rows.shape == (3, DIMENSIONS)
        assert rows.dtype == np.float32
        np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-6)
        assert not np.array_equal(rows[0], rows[1])


def test_results_are_not_overwritten_by_the_next_run(by_threads: dict[int, Backend]) -> None:
    backend = by_threads[1]
    first = backend.run([random_text(9, 1)])
    kept = first.copy()
    backend.run([random_text(9, 2)])
    assert np.array_equal(first, kept)


def test_vectors_are_those_of_onnxruntime_whatever_the_length(
    by_threads: dict[int, Backend], graph: Path
) -> None:
    texts = [random_text(length, length) for length in range(1, MAX_TOKENS + 1)]
    true = run_grouped(load("onnxruntime", graph), texts, 1)
    # Both compute in float32 and differ by the order of sums; a padded token that counted, or a
    # position that moved, would be seen at once in vectors of random weights.
    cosines = (run_grouped(by_threads[2], texts, 8) * true).sum(axis=1)
    assert cosines.min() >= 0.9999


def test_texts_run_at_least_at_their_length_and_never_beyond_the_model(
    by_threads: dict[int, Backend],
) -> None:
    backend = by_threads[1]
    buckets = [backend.bucket(length) for length in range(1, MAX_TOKENS + 1)]
    assert all(bucket >= length for length, bucket in enumerate(buckets, start=1))
    assert buckets == sorted(buckets)
    assert buckets[-1] == MAX_TOKENS
    assert all(backend.bucket(bucket) == bucket for bucket in buckets)


@settings(max_examples=150, deadline=None)
@given(
    lengths=st.lists(st.integers(2, MAX_TOKENS), min_size=1, max_size=24),
    size=st.integers(1, 24),
    threads=st.sampled_from(THREADS),
    seed=st.integers(0, 3),
)
def test_vector_is_the_same_to_the_last_bit_alone_and_in_any_company(
    by_threads: dict[int, Backend], lengths: list[int], size: int, threads: int, seed: int
) -> None:
    texts = [random_text(length, seed) for length in lengths]
    alone = np.concatenate([by_threads[1].run([ids]) for ids in texts])
    backend = by_threads[threads]
    with ThreadPoolExecutor(threads) as callers:
        found = callers.map(lambda turn: run_grouped(backend, texts[turn:], size), range(threads))
    for turn, rows in enumerate(found):
        assert rows.tobytes() == alone[turn:].tobytes()


def test_more_callers_than_threads_get_their_own_rows(by_threads: dict[int, Backend]) -> None:
    backend = by_threads[2]
    texts = [random_text(length, seed) for length in (5, 30, 90) for seed in range(10)]
    true = np.concatenate([backend.run([ids]) for ids in texts])
    wrong: list[int] = []

    def call(number: int) -> None:
        order = np.random.default_rng(number).permutation(len(texts))
        for place in [*order, *order]:
            if not np.array_equal(backend.run([texts[place]])[0], true[place]):
                wrong.append(int(place))

    callers = [threading.Thread(target=call, args=(number,)) for number in range(8)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert wrong == []


def test_run_after_close_is_an_error_and_closing_twice_is_none(engine: str, graph: Path) -> None:
    backend = load(engine, graph)
    backend.run([random_text(5)])
    backend.close()
    backend.close()
    with pytest.raises(ModelError, match="closed while it was in use"):
        backend.run([random_text(5)])


def test_texts_that_do_not_belong_together_are_refused(by_threads: dict[int, Backend]) -> None:
    with pytest.raises(ModelError):
        by_threads[1].run([random_text(5), random_text(50)])
    assert by_threads[1].run([random_text(5)]).shape == (1, DIMENSIONS), "it goes on"


def test_text_beyond_the_model_is_refused(by_threads: dict[int, Backend]) -> None:
    with pytest.raises(ModelError):
        by_threads[1].run([random_text(MAX_TOKENS + 1)])


@pytest.mark.parametrize("damage", ["missing", "empty", "cut", "no graph"])
def test_file_that_is_no_graph_is_refused_by_name(
    engine: str, graph: Path, tmp_path: Path, damage: str
) -> None:
    path = tmp_path / "damaged.onnx"
    content = graph.read_bytes()
    contents = {"empty": b"", "cut": content[: len(content) // 2], "no graph": b"{}" * 99}
    if damage in contents:
        path.write_bytes(contents[damage])
    with pytest.raises(ModelError, match=r"Graph `.*damaged.onnx` cannot be loaded"):
        load(engine, path)


def test_graph_without_sentence_embedding_is_refused(engine: str, tmp_path: Path) -> None:
    path = write_tiny_graph(tmp_path / "other.onnx", output="last_hidden_state")
    with pytest.raises(ModelError, match="gives `last_hidden_state`, no embedding"):
        load(engine, path)


def test_device_that_is_not_there_is_refused(engine: str, graph: Path) -> None:
    with pytest.raises(ModelError, match="`abacus`"):
        load(engine, graph, replace(OPTIONS, device="abacus"))


@pytest.mark.parametrize("arithmetic", ["bf16", "f16"])
def test_arithmetic_is_what_was_asked_for_or_an_error(
    engine: str, graph: Path, arithmetic: Arithmetic
) -> None:
    """An engine that fell back to float32 without a word would give float32's very bits."""
    asked = replace(OPTIONS, arithmetic=arithmetic)
    if engine == "openvino" and CPU_FEATURE[arithmetic] & flags_of_this_cpu():
        texts = [random_text(length) for length in (5, 50)]
        rows = run_grouped(load(engine, graph, asked), texts, 1)
        plain = run_grouped(load(engine, graph), texts, 1)
        assert not np.array_equal(rows, plain)
        assert (rows * plain).sum(axis=1).min() >= 0.999
    else:
        with pytest.raises(ModelError, match=f"(?s)`{arithmetic}`.* Pull"):
            load(engine, graph, asked)


@cache
def real_texts(tokenizer_path: Path, max_tokens: int) -> list[TokenIds]:
    """Return texts of many lengths up to the model's own."""
    tokenizer = ModelTokenizer(tokenizer_path)
    words = " ".join(fidelity.reference_texts()).split(" ")
    counts = [*range(1, 30, 2), 40, 55, 70, 90, 120, 150, 200, 400]
    texts = [" ".join(words[count * 7 : count * 8]) for count in counts]
    return [tokenizer.tokenize(text, max_tokens).ids for text in texts]


def test_installed_model_gives_one_vector_a_text_on_its_own_engine(model_home: Path) -> None:
    spec = encoder_spec(installed.resolve(model_home / "models", "all-minilm"))
    options = BackendOptions(
        device="cpu",
        threads=2,
        arithmetic=spec.arithmetic,
        pad_token_id=spec.pad_token_id,
        max_tokens=spec.max_tokens,
        dynamic_group=spec.dynamic_group,
    )
    backend = load(spec.engine, spec.onnx_path, options)
    for ids in real_texts(spec.tokenizer_path, spec.max_tokens):
        [alone] = backend.run([ids])
        for size in (2, 3, 7, 16)[: max(1, 512 // len(ids))]:
            neighbours = [np.roll(ids, turn) for turn in range(1, size)]
            assert np.array_equal(backend.run([*neighbours, ids])[-1], alone), (len(ids), size)
    backend.close()
