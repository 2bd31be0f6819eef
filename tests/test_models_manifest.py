import json
from dataclasses import replace
from pathlib import Path

import pytest

from embedserve.errors import InvalidNameError, ModelError, ModelNotFoundError
from embedserve.models import installed, manifest
from embedserve.models.checkpoint import Architecture
from embedserve.models.fidelity import FidelityCard
from embedserve.models.manifest import (
    MANIFEST_FILE,
    Canary,
    Candidate,
    Manifest,
    Performance,
    Runtime,
)
from embedserve.models.names import parse_name

ANY_DIGEST = {"sha256": "0" * 64, "size_bytes": 1}


def make_model(
    models_folder: Path, name: str = "tiny", created_at: str = "2026-01-01T00:00:00Z"
) -> Manifest:
    """Install a model of two small files that no engine could run."""
    parsed = parse_name(name)
    folder = installed.folder_of(models_folder, parsed)
    folder.mkdir(parents=True)
    (folder / "model.onnx").write_bytes(b"graph" * 100)
    (folder / "tokenizer.json").write_bytes(b"{}" * 50)
    made = Manifest(
        format_version=manifest.FORMAT_VERSION,
        name=parsed.display,
        source="folder x",
        revision="",
        weights_sha256="0" * 64,
        licence="Apache-2.0",
        kind="embedding",
        family="bert",
        architecture=Architecture(10, 2, 4, 64, 64, 77, 1e-12),
        pooling="mean",
        max_tokens=48,
        dimensions=3,
        matryoshka_dimensions=(2,),
        layer_norm_before_cut=False,
        query_prompt="query: ",
        document_prompt="",
        recipe="int8",
        method="by hand",
        runtime=Runtime("openvino", "bf16", 128, 1),
        files={file: manifest.digest_file(folder / file) for file in manifest.MODEL_FILES},
        canary=Canary("é", (0.6, 0.8, 0.10000000149011612)),
        fidelity=FidelityCard(0.999, 0.99, 0.96, 0.97, 100),
        performance=Performance(
            "openvino 1", "x86_64 avx2", 2, 100.0, 200.5, 300.0, 1_000_000, is_batch_invariant=True
        ),
        candidates=(
            Candidate("openvino", "int8", "by hand", "installed", 300.0),
            Candidate("onnxruntime", "int8", "by rows", "refused: mean cosine"),
        ),
        created_at=created_at,
    )
    manifest.write(folder, made)
    return made


def folder_of(models_folder: Path) -> Path:
    return installed.folder_of(models_folder, parse_name("tiny"))


def test_manifest_comes_back_as_it_was_written(tmp_path: Path) -> None:
    made = make_model(tmp_path)
    again = manifest.read(folder_of(tmp_path), "tiny:latest")
    assert again == made
    assert again.digest == manifest.digest_file(folder_of(tmp_path) / MANIFEST_FILE).sha256
    manifest.verify(folder_of(tmp_path), again)


def test_artefact_depends_on_what_changes_vectors_and_on_nothing_else(tmp_path: Path) -> None:
    made = make_model(tmp_path)
    assert len(made.artefact) == 64
    assert replace(made, created_at="later", source="elsewhere").artefact == made.artefact
    assert replace(made, max_tokens=47).artefact != made.artefact
    assert replace(made, query_prompt="q: ").artefact != made.artefact
    for change in (
        {"engine": "onnxruntime"},
        {"arithmetic": "f32"},
        {"dynamic_group": 0},
        {"pad_token_id": 0},
    ):
        runtime = replace(made.runtime, **change)
        assert replace(made, runtime=runtime).artefact != made.artefact, change
    other = {**made.files, "tokenizer.json": made.files["model.onnx"]}
    assert replace(made, files=other).artefact != made.artefact


@pytest.mark.parametrize("file", manifest.MODEL_FILES)
def test_one_corrupted_byte_is_found(tmp_path: Path, file: str) -> None:
    made = make_model(tmp_path)
    content = bytearray((folder_of(tmp_path) / file).read_bytes())
    content[17] ^= 1
    (folder_of(tmp_path) / file).write_bytes(content)
    with pytest.raises(ModelError, match=rf"{file}` has sha256 .*embedserve pull tiny:latest"):
        manifest.verify(folder_of(tmp_path), made)


def test_truncated_and_missing_files_are_found(tmp_path: Path) -> None:
    made = make_model(tmp_path)
    path = folder_of(tmp_path) / "tokenizer.json"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ModelError, match=r"tokenizer.json` has 99 bytes instead of 100"):
        manifest.verify(folder_of(tmp_path), made)
    path.unlink()
    with pytest.raises(ModelError, match=r"tokenizer.json` cannot be read: No such file"):
        manifest.verify(folder_of(tmp_path), made)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format_version": 3}, "has format 3, this version reads 2"),
        ({"format_version": 1}, "has format 1, this version reads 2"),
        ({"max_tokens": "many"}, "is not a manifest"),
        ({"runtime": {"engine": "openvino"}}, "is not a manifest"),
        ({"kind": "decoder"}, "is not a manifest"),
        ({"files": {"../../x": ANY_DIGEST}}, "does not list"),
        (
            {"files": dict.fromkeys((*manifest.MODEL_FILES, "../x"), ANY_DIGEST)},
            "lists other than",
        ),
        (
            {"files": dict.fromkeys((*manifest.MODEL_FILES, "/x"), ANY_DIGEST)},
            "lists other than",
        ),
        ({"files": {"model.onnx": ANY_DIGEST}}, "does not list"),
    ],
)
def test_manifest_that_does_not_hold_is_refused(
    tmp_path: Path, change: dict[str, object], message: str
) -> None:
    make_model(tmp_path)
    path = folder_of(tmp_path) / MANIFEST_FILE
    path.write_text(json.dumps({**json.loads(path.read_bytes()), **change}))
    with pytest.raises(ModelError, match=rf"`tiny:latest`.*{message}.*`embedserve pull tiny"):
        installed.resolve(tmp_path, "tiny")
    assert installed.list_installed(tmp_path) == []


def test_manifest_that_is_not_json_is_refused(tmp_path: Path) -> None:
    make_model(tmp_path)
    (folder_of(tmp_path) / MANIFEST_FILE).write_bytes(b'{"format_version": 1')
    with pytest.raises(ModelError, match="is not a manifest"):
        installed.resolve(tmp_path, "tiny")


def test_models_are_listed_newest_first(tmp_path: Path) -> None:
    make_model(tmp_path, "one", "2026-01-01T00:00:00Z")
    make_model(tmp_path, "hf.co/org/two:v2", "2026-01-03T00:00:00Z")
    make_model(tmp_path, "three", "2026-01-02T00:00:00Z")
    listed = installed.list_installed(tmp_path)
    names = [model.name.display for model in listed]
    assert names == ["hf.co/org/two:v2", "three:latest", "one:latest"]
    assert listed[0].size_bytes == 600


def test_nothing_is_installed_in_an_absent_folder(tmp_path: Path) -> None:
    assert installed.list_installed(tmp_path / "absent") == []


def test_folder_without_manifest_is_not_installed(tmp_path: Path) -> None:
    make_model(tmp_path)
    (folder_of(tmp_path) / MANIFEST_FILE).unlink()
    assert installed.list_installed(tmp_path) == []
    with pytest.raises(ModelNotFoundError, match='model "Tiny" not found, try pulling it first'):
        installed.resolve(tmp_path, "Tiny")


@pytest.mark.parametrize("asked", ["all-minilm:22m", "ALL-MINILM:l6-V2", "library/all-minilm:22M"])
def test_library_alias_is_resolved(tmp_path: Path, asked: str) -> None:
    make_model(tmp_path, "all-minilm")
    assert installed.resolve(tmp_path, asked).name.display == "all-minilm:latest"


def test_exact_name_goes_before_its_alias(tmp_path: Path) -> None:
    make_model(tmp_path, "all-minilm:latest")
    make_model(tmp_path, "all-minilm:22m")
    assert installed.resolve(tmp_path, "all-minilm:22m").name.tag == "22m"


def test_other_tags_are_other_models(tmp_path: Path) -> None:
    make_model(tmp_path, "all-minilm")
    with pytest.raises(ModelNotFoundError):
        installed.resolve(tmp_path, "all-minilm:33m")
    with pytest.raises(InvalidNameError):
        installed.resolve(tmp_path, "../x")


def test_removed_model_is_gone_and_others_stay(tmp_path: Path) -> None:
    make_model(tmp_path, "one")
    make_model(tmp_path, "two")
    installed.remove(tmp_path, "ONE")
    assert [model.name.model for model in installed.list_installed(tmp_path)] == ["two"]
    with pytest.raises(ModelNotFoundError):
        installed.remove(tmp_path, "one")


def test_alias_is_not_removed_by_another_name(tmp_path: Path) -> None:
    make_model(tmp_path, "all-minilm:latest")
    with pytest.raises(ModelNotFoundError):
        installed.remove(tmp_path, "all-minilm:22m")


def test_install_that_died_halfway_is_undone_by_the_next(tmp_path: Path) -> None:
    made = make_model(tmp_path)
    name = parse_name("tiny")
    folder = folder_of(tmp_path)
    with installed.lock(tmp_path, name), installed.staging(tmp_path, name) as staged:
        folder.rename(staged.parent / "replaced")  # and here the process dies
        assert installed.list_installed(tmp_path) == []
    assert installed.resolve(tmp_path, "tiny").manifest == made
    assert list((tmp_path / ".staging").iterdir()) == []
