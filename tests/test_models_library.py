"""The rows of the library, how names find them, and their table in the documentation."""

import re
from collections import Counter
from pathlib import Path

import pytest

from embedserve.models.library import KnownModel, find_known, library, spellings
from embedserve.models.names import RECIPES, parse_name, split_recipe

TABLE = Path(__file__).parent.parent / "docs" / "models.md"
POSITIONS = {
    "bert": 512,
    "roberta": 512,
    "deberta-v2": 512,
    "xlm-roberta": 8192,
    "nomic-bert": 2048,
    "modernbert": 8192,
}
SIZES = (384, 768, 1024)


def row_of(text: str) -> KnownModel:
    row = find_known(parse_name(text))
    assert row is not None, text
    return row


@pytest.mark.parametrize(
    ("text", "repository"),
    [
        ("all-minilm", "sentence-transformers/all-MiniLM-L6-v2"),
        ("ALL-MINILM:L6-v2", "sentence-transformers/all-MiniLM-L6-v2"),
        ("all-minilm:22m-l6-v2-fp16", "sentence-transformers/all-MiniLM-L6-v2"),
        ("all-minilm:fp32", "sentence-transformers/all-MiniLM-L6-v2"),
        ("all-minilm:latest-bf16", "sentence-transformers/all-MiniLM-L6-v2"),
        ("hf.co/sentence-transformers/all-MiniLM-L6-v2", "sentence-transformers/all-MiniLM-L6-v2"),
        ("hf.co/baai/BGE-m3:int8", "BAAI/bge-m3"),
        ("all-minilm:33m", "sentence-transformers/all-MiniLM-L12-v2"),
        ("all-minilm:33m-l12-v2-fp16", "sentence-transformers/all-MiniLM-L12-v2"),
        ("nomic-embed-text", "nomic-ai/nomic-embed-text-v1.5"),
        ("nomic-embed-text:137m-v1.5-fp16", "nomic-ai/nomic-embed-text-v1.5"),
        ("mxbai-embed-large:335m", "mixedbread-ai/mxbai-embed-large-v1"),
        ("bge-large:335m", "BAAI/bge-large-en-v1.5"),
        ("bge-m3:567m", "BAAI/bge-m3"),
        ("snowflake-arctic-embed", "Snowflake/snowflake-arctic-embed-l"),
        ("snowflake-arctic-embed:22m", "Snowflake/snowflake-arctic-embed-xs"),
        ("snowflake-arctic-embed:33m", "Snowflake/snowflake-arctic-embed-s"),
        ("snowflake-arctic-embed:110m", "Snowflake/snowflake-arctic-embed-m"),
        ("snowflake-arctic-embed:137m", "Snowflake/snowflake-arctic-embed-m-long"),
        ("snowflake-arctic-embed2:568m", "Snowflake/snowflake-arctic-embed-l-v2.0"),
        ("granite-embedding", "ibm-granite/granite-embedding-30m-english"),
        ("granite-embedding:278m-fp16", "ibm-granite/granite-embedding-278m-multilingual"),
        ("paraphrase-multilingual", "sentence-transformers/paraphrase-multilingual-mpnet-base-v2"),
        ("bge-small", "BAAI/bge-small-en-v1.5"),
        ("bge-base-en-v1.5", "BAAI/bge-base-en-v1.5"),
        ("e5-small-v2:int8", "intfloat/e5-small-v2"),
        ("multilingual-e5-large", "intfloat/multilingual-e5-large"),
        ("gte-base", "thenlper/gte-base"),
        ("ms-marco-minilm-l6-v2", "cross-encoder/ms-marco-MiniLM-L6-v2"),
        ("bge-reranker-v2-m3", "BAAI/bge-reranker-v2-m3"),
        ("mxbai-rerank-xsmall", "mixedbread-ai/mxbai-rerank-xsmall-v1"),
    ],
)
def test_names_that_people_type_find_their_row(text: str, repository: str) -> None:
    assert row_of(text).repository == repository


@pytest.mark.parametrize(
    "text",
    [
        *("all-minilm:44m", "me/all-minilm", "nothing", "hf.co/o/r", "all-minilm:22m-q4"),
        "hf.co/BAAI/bge-m3:another-branch",
    ],
)
def test_other_names_find_no_row(text: str) -> None:
    assert find_known(parse_name(text)) is None


def test_no_name_stands_for_two_rows() -> None:
    names = Counter(name.key for row in library() for name in spellings(row))
    assert [name for name, count in names.items() if count > 1] == []


@pytest.mark.parametrize("recipe", [None, *RECIPES])
def test_spellings_lead_back_to_their_row_in_their_precision(recipe: str | None) -> None:
    for row in library():
        for name in spellings(row, recipe):
            assert find_known(name) is row, name
            assert split_recipe(name.tag)[1] == recipe
            assert parse_name(name.display) == name


def test_one_precision_is_no_spelling_of_another() -> None:
    row = row_of("all-minilm")
    assert parse_name("all-minilm:fp32") in spellings(row, "fp32")
    assert parse_name("all-minilm:22m-fp32") in spellings(row, "fp32")
    assert parse_name("all-minilm:fp32") not in spellings(row)
    assert not {*spellings(row)} & {*spellings(row, "int8")}


def test_every_row_is_whole() -> None:
    for row in library():
        assert re.fullmatch(r"[\w.-]+/[\w.-]+", row.repository), row
        assert row.revision is None or re.fullmatch(r"[0-9a-f]{40}", row.revision), row
        assert row.licence in ("Apache-2.0", "MIT"), row
        assert 0 < row.max_tokens <= POSITIONS[row.family], row
        assert row.weights_sha256 is None or re.fullmatch(r"[0-9a-f]{64}", row.weights_sha256), row
        is_reranker = row.kind == "reranker"
        assert row.kind in ("embedding", "reranker"), row
        assert (row.pooling is None) == (row.dimensions is None) == is_reranker, row
        assert row.pooling in (None, "mean", "cls"), row
        if is_reranker:
            assert (row.query_prompt, row.document_prompt, row.matryoshka_dimensions) == (
                *("", ""),
                (),
            ), row


def test_vectors_have_the_sizes_of_encoders_and_are_cut_to_shorter_ones() -> None:
    for row in library():
        if row.dimensions is None:
            continue
        assert row.dimensions in SIZES, row
        cuts = row.matryoshka_dimensions
        assert list(cuts) == sorted({*cuts}, reverse=True), row
        assert all(0 < cut < row.dimensions for cut in cuts), row
        assert cuts or not row.layer_norm_before_cut, row


def test_prompts_end_where_the_text_begins() -> None:
    for row in library():
        for prompt in (row.query_prompt, row.document_prompt):
            assert prompt == "" or re.fullmatch(r"\S.*: ", prompt), row


def test_repositories_and_names_are_each_told_once() -> None:
    assert len({row.repository for row in library()}) == len(library())
    for name in {row.name for row in library()}:
        with_latest = [row for row in library() if row.name == name and "latest" in row.tags]
        assert len(with_latest) == 1, name


def test_lengths_are_those_of_sentence_transformers() -> None:
    lengths = {name: row_of(name).max_tokens for name in ("all-minilm", "all-minilm:33m")}
    assert lengths == {"all-minilm": 256, "all-minilm:33m": 128}
    assert row_of("paraphrase-multilingual").max_tokens == 128


def test_rows_that_need_code_ask_for_a_ready_graph() -> None:
    for row in library():
        assert row.needs_ready_onnx or row.family != "nomic-bert", row


def cell(values: list[str]) -> str:
    return ", ".join(f"`{value}`" for value in values) or "none"


def line(row: KnownModel) -> str:
    names = [f"{row.name}:{tag}" if tag != "latest" else row.name for tag in row.tags]
    sizes = [str(size) for size in (row.dimensions, *row.matryoshka_dimensions) if size]
    needs = "ready ONNX" if row.needs_ready_onnx else ""
    prompts = [prompt for prompt in (row.query_prompt, row.document_prompt) if prompt]
    cells = (
        cell([*names, *row.aliases]),
        f"{row.repository} @ {(row.revision or 'main')[:7]}",
        row.family,
        row.pooling or "",
        ", ".join(sizes),
        str(row.max_tokens),
        cell(prompts) if row.kind == "embedding" else "",
        row.licence,
        needs,
    )
    return "| " + " | ".join(cells).replace("  ", " ") + " |"


def test_documentation_has_every_row_as_the_library_has_it() -> None:
    lines = TABLE.read_text("utf-8").splitlines()
    wanted = [line(row) for row in library()]
    missing = [text for text in wanted if text not in lines]
    assert not missing, "docs/models.md lacks:\n" + "\n".join(missing)
    first, last = lines.index(wanted[0]), lines.index(wanted[-1])
    rows = [text for text in lines[first : last + 1] if text.startswith("| `")]
    assert rows == wanted, "in the order of the library, and no other between"
