"""docs/quantization.md is whole, and the parts that make it measure what they say."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from embedserve.models import fidelity
from embedserve.models.fidelity import FidelityCard
from embedserve.models.recipes import RECIPES
from embedserve.services.workshop import Workshop
from embedserve.types import Vectors
from scripts.quantization_report import artefacts, measure, page, prose, retrieval
from scripts.quantization_report.figures import (
    BASE,
    LENGTHS,
    MINILM,
    Report,
    Row,
    read_report,
    recipes_on_cpu,
)
from scripts.quantization_report.measure import Rounds
from scripts.quantization_report.retrieval import Retrieval
from scripts.quantization_report.rival import Files, Session, Way
from tests.tiny_models import Exported

PAGE = Path(__file__).parent.parent / "docs" / "quantization.md"
PERFECT = FidelityCard(1.0, 1.0, 1.0, 1.0, 237)


def row(
    recipe: str, number: int = 0, *, speed: float = 1000, card: FidelityCard | None = PERFECT
) -> Row:
    way = RECIPES[recipe].ways[number]
    return Row(
        engine=way.engine,
        recipe=recipe,
        method=way.method,
        size_bytes=20_000_000,
        resident_bytes=200_000_000,
        speeds={length: [speed, speed * 2, speed] for length in LENGTHS},
        is_batch_invariant=True,
        card=card,
        ndcg10=0.64,
    )


def report(ways: list[Row]) -> Report:
    rival = replace(row("int8-dynamic"), recipe="", method="optimum's", speeds=row("fp32").speeds)
    return Report(
        date="2026-01-01",
        cpu="a CPU",
        engines="an engine",
        cores=2,
        load="0.0 and 0.0",
        rounds=3,
        seconds=1.0,
        empty_bytes=50_000_000,
        ways=ways,
        rivals=[rival, replace(rival, speeds={length: [1, 8000, 1] for length in LENGTHS})],
    )


@pytest.fixture
def tiny(exported: dict[str, Exported], tmp_path: Path) -> artefacts.Model:
    """A model of two layers in a folder where artefacts may be built."""
    one = exported["bert-mean"]
    for name in ("reference.onnx", "tokenizer.json"):
        (tmp_path / name).write_bytes((one.folder / name).read_bytes())
    return artefacts.Model(
        tmp_path, one.facts.max_tokens, one.facts.dimensions, one.facts.pad_token_id
    )


def tables(text: str) -> dict[str, list[list[str]]]:
    """Return the cells of each section's table rows, heads left out."""
    found: dict[str, list[list[str]]] = {}
    for section in text.split("\n## ")[1:]:
        lines = [line for line in section.splitlines() if line.startswith("| ")]
        rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[1:]]
        found[section.splitlines()[0]] = rows
    return found


def test_the_page_has_every_engine_and_recipe_with_the_gates_of_the_table() -> None:
    text = PAGE.read_text(encoding="utf-8")
    wanted = {
        (way.engine, f"`{name}`", way.method)
        for name in recipes_on_cpu()
        for way in RECIPES[name].ways
    }
    assert len(wanted) > 8
    sections = tables(text)
    for title in (
        "all-minilm: fidelity",
        "all-minilm: speed, size and memory",
        "A model of BERT-base's size",
    ):
        assert wanted <= {tuple(cells[:3]) for cells in sections[title]}, title
    assert page.gates_table() in text
    assert all(paragraph in text for paragraph in page.recipe_words())


def test_every_figure_of_the_page_was_measured() -> None:
    sections = tables(PAGE.read_text(encoding="utf-8"))
    cells = [cell for cells in sections["all-minilm: fidelity"] for cell in cells[3:7]]
    cells += [c for cells in sections["all-minilm: speed, size and memory"] for c in cells[3:]]
    assert cells
    assert [cell for cell in cells if not any(sign.isdigit() for sign in cell)] == []


def test_every_recipe_is_explained() -> None:
    assert list(prose.RECIPES) == list(RECIPES)


def test_the_default_is_the_fastest_that_passes_its_gate() -> None:
    bad = FidelityCard(0.99, 0.9, 0.9, 0.9, 237)
    ways = [
        row("int8", 0, speed=9000, card=bad),
        row("int8", 1, speed=5000),
        row("int8", 2, speed=7000),  # never tried: the one before it passes
        row("int8", 3, speed=3000),
        row("bf16", speed=4000),
        row("fp32", speed=8000),  # of a later group
    ]
    chosen = report(ways)
    assert chosen.default() == ways[1]
    # Of the rounds 5000/1000, 10000/8000, 5000/1000 the middle one.
    assert chosen.ratio(ways[1], "mixed") == 5.0
    assert report(ways[:1]).default() is None
    assert "Nothing that was measured passes" in page.page(report(ways[:1]))


def test_a_report_survives_its_file(tmp_path: Path) -> None:
    before = report([row("int8", 1), row("fp32", card=None)])
    before.write(tmp_path / "last.json")
    assert read_report(tmp_path / "last.json") == before


def test_arithmetic_gives_back_the_models_it_was_solved_from() -> None:
    assert page.solve(MINILM, 23e6, 109e6) == pytest.approx(23e6)
    assert page.solve(BASE, 23e6, 109e6) == pytest.approx(109e6)
    # Counted by transformers, without the pooler that no embedding passes through.
    assert BASE.table_parameters + BASE.layer_parameters == pytest.approx(108_891_648, rel=1e-4)


def test_retrieval_ranks_documents_by_cosine_for_each_query() -> None:
    corpus = Retrieval(
        {"d1": "one", "d2": "two"},
        {"q1": "?", "q2": "??"},
        {"q1": {"d1": 1}, "q2": {"d1": 1}},
    )
    documents = [[1.0, 0.0], [0.0, 1.0]]
    vectors = np.array([*documents, [1.0, 0.0], [0.0, 1.0]], dtype=np.float32)
    assert corpus.texts == ["one", "two", "?", "??"]
    assert corpus.ndcg(vectors) == pytest.approx((1 + 1 / np.log2(3)) / 2)


def test_vectors_are_made_once_for_each_identity(tmp_path: Path) -> None:
    made: list[str] = []

    def embed(name: str) -> Vectors:
        made.append(name)
        return np.full((1, 2), len(made), dtype=np.float32)

    for name in ("a", "b", "a"):
        rows = retrieval.cached(tmp_path, ["graph", name], lambda name=name: embed(name))  # type: ignore[misc]
    assert made == ["a", "b"]
    assert rows[0, 0] == 1


def test_scifact_is_read_as_beir_has_it(data: Path) -> None:
    corpus = retrieval.read_scifact(data / "scifact")
    assert (len(corpus.documents), len(corpus.queries)) == (5183, 300)
    assert sum(len(gains) for gains in corpus.judgements.values()) == 339
    assert corpus.documents["4983"].startswith(
        "Microstructural development of human newborn cerebral white matter assessed in vivo by "
        "diffusion tensor magnetic resonance imaging. Alterations of"
    )


def test_a_rival_gives_each_text_its_own_vector_whatever_it_is_padded_to(
    tiny: artefacts.Model,
) -> None:
    files = Files(tiny.reference, tiny.tokenizer, tiny.max_tokens, tiny.pad_token_id)
    texts = fidelity.reference_texts()[:9]
    alone = Session(files, Way(batch=1, workers=2, threads=1)).encode(texts)
    padded = Session(files, Way(batch=4, workers=1, threads=2)).encode(texts)
    assert np.einsum("nd,nd->n", alone, padded) == pytest.approx(1, abs=1e-5)
    others = alone @ alone.T - np.eye(len(texts), dtype=np.float32)
    assert others.max() < 0.9999, "texts of one vector would hide a wrong order"


def test_ways_are_built_and_timed_in_turns(tiny: artefacts.Model, workshop: Workshop) -> None:
    rows = measure.measure_base(tiny, ["fp32"], workshop, Rounds(2, 0.01))
    assert [(r.engine, r.recipe) for r in rows] == [
        (way.engine, "fp32") for way in RECIPES["fp32"].ways
    ]
    for one in rows:
        assert one.size_bytes == tiny.reference.stat().st_size
        assert one.resident_bytes > 20_000_000
        assert [speed > 0 for speed in one.speeds["128"]] == [True, True]
        assert one.is_batch_invariant
