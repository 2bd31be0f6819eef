"""Reranking from texts to scores: as sentence-transformers gives them, whatever comes together."""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer

from embedserve.engine.backend import describe
from embedserve.engine.cache import VectorCache
from embedserve.engine.scheduler import Scheduler
from embedserve.engine.tokenizer import ModelTokenizer
from embedserve.errors import (
    DeadlineError,
    InputTooLongError,
    InvalidRequestError,
    ModelNotFoundError,
    OverloadedError,
    TooLargeError,
)
from embedserve.services.admission import Admission, forecast, forecast_pairs
from embedserve.services.embedding import EmbeddingService, EmbedLimits, EmbedRequest
from embedserve.services.encoders import Encoders
from embedserve.services.reranking import RerankingService, RerankRequest
from embedserve.types import BatchTokens
from tests.tiny_installed import install_tiny
from tests.tiny_models import Exported, pairs
from tests.tiny_networks import MAX_TOKENS
from tests.tiny_tokenizers import WORDS

ENGINES = ("onnxruntime", "openvino")
# Families that tell the two texts apart by types, by doubled separators, and by one separator.
FAMILIES = ("bert", "roberta", "xlm-roberta", "distilbert")

# What summing up in another order changes of a logit.
MAX_DIFFERENCE = 1e-5

QUERY = " ".join(WORDS[:3])
Make = Callable[..., RerankingService]


def draw(words: int, seed: int) -> str:
    return " ".join(np.random.default_rng(seed).choice(WORDS, words))


def documents(count: int = 24) -> list[str]:
    """Return texts of 0 to about 40 words, some too long to stand beside a query."""
    return [draw(3 * (seed % 14), seed) for seed in range(count)]


@pytest.fixture(scope="module")
def models(exported: dict[str, Exported], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rerankers")
    install_tiny(folder, exported["bert-mean"], "encoder")
    for engine in ENGINES:
        if describe(engine).is_available:
            for family in FAMILIES:
                name = f"{family}:{engine}"
                install_tiny(folder, exported[f"{family}-reranker"], name, engine=engine)
    return folder


@pytest.fixture(scope="module")
def encoders(models: Path) -> Iterator[Encoders]:
    scheduler = Scheduler(workers=2, batch_tokens=BatchTokens(256, 1024), queue_tokens=10_000)
    encoders = Encoders(models, scheduler, device="cpu")
    yield encoders
    encoders.close()
    scheduler.close()


@pytest.fixture
def service(encoders: Encoders) -> Iterator[RerankingService]:
    # Without a cache: every score is computed.
    service = RerankingService(encoders, VectorCache(0), limits(), threads=1)
    yield service
    service.close()


def limits(**changes: float) -> EmbedLimits:
    given = {"small_request_tokens": 256, "max_texts": 100, "max_text_bytes": 100_000, **changes}
    return EmbedLimits(**given)  # type: ignore[arg-type]


def logits(service: RerankingService, model: str, query: str, texts: Sequence[str]) -> bytes:
    ranking = asyncio.run(service.rank(RerankRequest(query, texts, model)))
    return ranking.logits.tobytes()


def require(engine: str) -> None:
    if not describe(engine).is_available:
        pytest.skip(f"ENGINE NOT CHECKED: {describe(engine).why_not}")


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("family", FAMILIES)
def test_scores_are_those_of_the_cross_encoder(
    family: str, engine: str, service: RerankingService, exported: dict[str, Exported]
) -> None:
    require(engine)
    expected = exported[f"{family}-reranker"].expected[:, 0]
    assert np.ptp(expected) > 1000 * MAX_DIFFERENCE, "the pairs are told apart"
    for (query, text), logit in zip(pairs(), expected.tolist(), strict=True):
        asked = RerankRequest(query, [text], f"{family}:{engine}")
        [found] = asyncio.run(service.rank(asked)).scores(is_raw=True)
        assert found == pytest.approx(logit, rel=0, abs=MAX_DIFFERENCE)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("family", FAMILIES)
def test_a_score_does_not_depend_on_the_other_documents(
    family: str, engine: str, service: RerankingService
) -> None:
    require(engine)
    model, texts = f"{family}:{engine}", documents()
    together = logits(service, model, QUERY, texts)
    alone = b"".join(logits(service, model, QUERY, [text]) for text in texts)
    assert together == alone
    assert len(set(np.frombuffer(together, dtype=np.float32).tolist())) > len(texts) / 2


@pytest.mark.parametrize("family", FAMILIES)
def test_pairs_are_cut_as_sentence_transformers_cuts_them(
    family: str, exported: dict[str, Exported]
) -> None:
    path = exported[f"{family}-reranker"].folder / "tokenizer.json"
    reference = Tokenizer.from_file(str(path))
    reference.no_padding()
    reference.enable_truncation(MAX_TOKENS, strategy="longest_first")
    ours, cut = ModelTokenizer(path), 0
    room = MAX_TOKENS - reference.num_special_tokens_to_add(is_pair=True)
    for seed in range(60):
        query, text = draw(1 + seed % 5, seed), draw(seed, seed + 100)
        length = len(reference.encode(query, add_special_tokens=False).ids)
        if length > room // 2:
            continue  # there the longest goes first, and a query is not cut here
        [pair] = ours.tokenize_pairs(
            ours.tokenize_query(query, MAX_TOKENS), [text], MAX_TOKENS, max_text_tokens=None
        )
        expected = reference.encode(query, text)
        assert pair.ids.tolist() == expected.ids
        assert pair.is_truncated == bool(expected.overflowing)
        cut += pair.is_truncated
    assert cut > 5


def test_a_long_query_stays_whole_and_one_that_fills_the_model_is_refused(
    service: RerankingService, exported: dict[str, Exported]
) -> None:
    path = exported["bert-reranker"].folder / "tokenizer.json"
    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.no_truncation()
    words = [word for word in WORDS if len(tokenizer.encode(word).ids) == 3]
    query = " ".join((words * 60)[: MAX_TOKENS - 4])
    ours = ModelTokenizer(path)
    [pair] = ours.tokenize_pairs(
        ours.tokenize_query(query, MAX_TOKENS), ["mill mill"], MAX_TOKENS, max_text_tokens=None
    )
    assert pair.ids[: MAX_TOKENS - 3].tolist() == tokenizer.encode(query).ids[:-1]
    assert (len(pair.ids), pair.is_truncated) == (MAX_TOKENS, True)
    with pytest.raises(InputTooLongError, match=r"The query is too long.*64 tokens.*shorten it"):
        logits(service, "bert:onnxruntime", f"{query} {words[0]}", ["mill"])


def test_documents_that_were_cut_are_told_or_refused(service: RerankingService) -> None:
    texts = [draw(5, 1), draw(200, 2), draw(3, 3)]
    asked = RerankRequest(QUERY, texts, "bert:onnxruntime")
    ranking = asyncio.run(service.rank(asked))
    assert ranking.truncated == (1,)
    shorter = RerankRequest(QUERY, texts, "bert:onnxruntime", max_document_tokens=4)
    cut = asyncio.run(service.rank(shorter))
    assert cut.truncated == (0, 1)
    assert cut.tokens < ranking.tokens
    whole = RerankRequest(QUERY, texts, "bert:onnxruntime", truncate=False)
    with pytest.raises(InputTooLongError, match="Document 1 is longer"):
        asyncio.run(service.rank(whole))


def test_order_is_by_score_and_equals_stay_as_they_came(service: RerankingService) -> None:
    texts = [draw(4, 1), draw(6, 2), draw(4, 1), draw(8, 3)]
    ranking = asyncio.run(service.rank(RerankRequest(QUERY, texts, "bert:onnxruntime")))
    ordered = [ranking.logits[at] for at in ranking.order]
    assert ordered == sorted(ordered, reverse=True)
    assert ranking.order.index(2) == ranking.order.index(0) + 1
    scores = ranking.scores()
    assert [sorted(scores, reverse=True)] == [[scores[at] for at in ranking.order]]
    assert all(0 < score < 1 for score in scores)
    assert ranking.scores(is_raw=True) == ranking.logits.tolist()


def test_a_pair_is_computed_once(encoders: Encoders) -> None:
    cache = VectorCache(100_000)
    service = RerankingService(encoders, cache, limits(), threads=1)
    texts = documents(5)
    first = logits(service, "bert:onnxruntime", QUERY, texts)
    assert logits(service, "bert:onnxruntime", QUERY, texts[::-1]) != first
    assert (cache.counts().hits, cache.counts().misses) == (5, 5)
    assert logits(service, "bert:onnxruntime", f"{QUERY} mill", texts) != first
    assert cache.counts().misses == 10, "another query is another pair"
    service.close()


def test_limits_are_those_of_embedding(encoders: Encoders) -> None:
    service = RerankingService(encoders, VectorCache(0), limits(max_texts=2), threads=1)
    with pytest.raises(TooLargeError, match="3 documents in one request; at most 2"):
        logits(service, "bert:onnxruntime", QUERY, ["a", "b", "c"])
    service.close()
    service = RerankingService(encoders, VectorCache(0), limits(max_text_bytes=600), threads=1)
    with pytest.raises(TooLargeError, match="Text 1 has more than 600 bytes"):
        logits(service, "bert:onnxruntime", QUERY, ["a", "b" * 601])
    with pytest.raises(TooLargeError, match=r"The query has more than 600 bytes.*MAX_TEXT_BYTES"):
        logits(service, "bert:onnxruntime", "b" * 601, ["a"])
    with pytest.raises(DeadlineError, match=r"within 1e-09 s"):
        asyncio.run(service.rank(RerankRequest(QUERY, ["a"], "bert:onnxruntime", timeout_s=1e-9)))
    service.close()


def test_long_request_is_refused_while_others_of_its_queue_are_tokenized(
    encoders: Encoders,
) -> None:
    admission = Admission(small_request_tokens=256)
    service = RerankingService(encoders, VectorCache(0), limits(), threads=1, admission=admission)
    model, texts = "bert:onnxruntime", [draw(40, seed) for seed in range(20)]
    with admission.place(encoders.get(model, "reranker"), 10_000):
        with pytest.raises(OverloadedError, match="server busy"):
            logits(service, model, QUERY, texts)
        with pytest.raises(OverloadedError, match="server busy"):
            logits(service, model, QUERY, ["a"] * 90)
        logits(service, model, QUERY, ["a"])  # tokenized sooner than refused
    logits(service, model, QUERY, texts)
    service.close()


def test_pairs_are_forecast_with_their_query() -> None:
    query, texts = "word " * 8, ["word " * 4, "word " * 400]
    alone = [forecast([text], 1000) for text in (query, *texts)]
    assert forecast_pairs(query, texts, 1000, max_text_tokens=None) == 2 * alone[0] + sum(alone[1:])
    assert forecast_pairs(query, texts, 1000, max_text_tokens=3) == 2 * alone[0] + 2 * 3
    assert forecast_pairs(query, texts, 20, max_text_tokens=None) == 20 + alone[0] + alone[1]


def test_each_kind_of_model_does_its_own(encoders: Encoders, service: RerankingService) -> None:
    embedding = EmbeddingService(encoders, VectorCache(0), limits(), threads=1)
    for _ in range(2):  # before it is loaded, and after
        with pytest.raises(InvalidRequestError, match=r"`bert:onnxruntime` is a reranker.*encoder"):
            asyncio.run(embedding.embed(EmbedRequest("bert:onnxruntime", ["a"])))
        with pytest.raises(
            InvalidRequestError, match=r"gives embeddings: it does not score.*Use `"
        ):
            logits(service, "encoder", QUERY, ["a"])
        logits(service, "bert:onnxruntime", QUERY, ["a"])
        asyncio.run(embedding.embed(EmbedRequest("encoder", ["a"])))
    with pytest.raises(ModelNotFoundError):
        logits(service, "nobody", QUERY, ["a"])
    embedding.close()


def test_without_a_name_the_only_reranker_answers(
    exported: dict[str, Exported], tmp_path: Path
) -> None:
    scheduler = Scheduler(workers=1, batch_tokens=BatchTokens(64, 64), queue_tokens=1_000)
    encoders = Encoders(tmp_path, scheduler, device="cpu")
    service = RerankingService(encoders, VectorCache(0), limits(), threads=1)
    install_tiny(tmp_path, exported["bert-mean"], "encoder")
    with pytest.raises(InvalidRequestError, match=r"No reranker model is installed. Pull one"):
        logits(service, "", QUERY, ["a"])
    install_tiny(tmp_path, exported["bert-reranker"], "judge")
    ranking = asyncio.run(service.rank(RerankRequest(QUERY, ["a"])))
    assert ranking.model == "judge:latest"
    install_tiny(tmp_path, exported["xlm-roberta-reranker"], "jury")
    encoders.refresh()  # as after every pull
    with pytest.raises(
        InvalidRequestError, match=r"installed: `judge:latest`, `jury:latest`. Name"
    ):
        logits(service, " ", QUERY, ["a"])
    for part in (service, encoders, scheduler):
        part.close()
