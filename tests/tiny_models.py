"""Checkpoints of a few kilobytes with random weights, one for each kind of encoder.

`python -m tests.tiny_models FOLDER` makes every case of `CASES`, exports it, and writes what
sentence-transformers gives for its texts: in a process of its own, so that the tests load no
training stack and do not see its warnings. `export_all` runs that and hands out the results.

    FOLDER/<case>/checkpoint/     as sentence-transformers saves it
    FOLDER/<case>/                reference.onnx, tokenizer.json, expected.npy
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedserve.models.checkpoint import Facts, read_facts
from tests.tiny_networks import HIDDEN, MAX_TOKENS, NETWORKS
from tests.tiny_tokenizers import TOKENIZERS, WORDS, special_tokens

ROOT = Path(__file__).parent.parent


@dataclass(frozen=True)
class TinyCase:
    """One checkpoint: a family, and what is special about it."""

    name: str
    family: str
    pooling: str = "mean"
    modules: tuple[str, ...] = ("Normalize",)
    is_reranker: bool = False
    wants_lower_case: bool = False
    """Whether sentence-transformers is told to lower the case that the tokenizer keeps."""
    dtype: str = "float32"
    """As which the weights are stored."""
    ready_opset: int | None = None
    """With a number, there is optimum's plain ONNX file of that operator set instead of weights."""


CASES = (
    TinyCase("bert-mean", "bert"),
    TinyCase("bert-cls", "bert", "cls", ()),
    TinyCase("bert-lasttoken", "bert", "lasttoken"),
    TinyCase("bert-sqrt", "bert", "mean_sqrt_len_tokens"),
    TinyCase("bert-max", "bert", "max"),
    TinyCase("bert-dense", "bert", "mean", ("Dense", "Normalize")),
    TinyCase("bert-sqrt-dense", "bert", "mean_sqrt_len_tokens", ("Dense", "LayerNorm")),
    TinyCase("bert-layernorm", "bert", "cls", ("LayerNorm", "Normalize")),
    TinyCase("bert-bfloat16", "bert", dtype="bfloat16"),
    TinyCase("roberta-mean", "roberta"),
    TinyCase("roberta-lower", "roberta", wants_lower_case=True),
    TinyCase("xlm-roberta-cls", "xlm-roberta", "cls", dtype="float16"),
    TinyCase("camembert-mean", "camembert"),
    TinyCase("mpnet-mean", "mpnet"),
    TinyCase("distilbert-mean", "distilbert"),
    TinyCase("modernbert-cls", "modernbert", "cls"),
    TinyCase("modernbert-mean", "modernbert", "mean"),
    TinyCase("t5-dense", "t5", "mean", ("Dense", "Normalize")),
    TinyCase("deberta-mean", "deberta-v2"),
    TinyCase("bert-reranker", "bert", is_reranker=True),
    TinyCase("xlm-roberta-reranker", "xlm-roberta", is_reranker=True),
    TinyCase("roberta-reranker", "roberta", is_reranker=True),
    TinyCase("distilbert-reranker", "distilbert", is_reranker=True),
    TinyCase("deberta-reranker", "deberta-v2", is_reranker=True),
    TinyCase("modernbert-reranker", "modernbert", is_reranker=True),
    TinyCase("bert-ready", "bert", "mean", ("Dense",), ready_opset=14),
    TinyCase("xlm-roberta-ready", "xlm-roberta", "cls", ready_opset=14),
    TinyCase("mpnet-ready", "mpnet", "mean", ready_opset=12),
    TinyCase("modernbert-ready", "modernbert", "mean", ready_opset=17),
    TinyCase("bert-reranker-ready", "bert", is_reranker=True, ready_opset=14),
)


@dataclass(frozen=True)
class Exported:
    """A case after its export."""

    case: TinyCase
    folder: Path
    """reference.onnx, tokenizer.json and the checkpoint."""
    facts: Facts
    expected: NDArray[np.float32]
    """What sentence-transformers gives: (texts, dimensions) unit rows, or (pairs, 1) logits."""


def texts() -> list[str]:
    """Return texts of 1 to about 60 words, shuffled, some longer than the models take."""
    generator = np.random.default_rng(5)
    lengths = [1, 2, 3, 5, 8, 13, 21, 34, 55, 90, 1, 2, 4, 6, 7, 9]
    return [" ".join(generator.choice(WORDS, length)) for length in lengths]


def pairs() -> list[tuple[str, str]]:
    """Return pairs of a query and a document that fit together into the models."""
    generator = np.random.default_rng(6)
    lengths = [(1, 1), (2, 5), (1, 8), (3, 3), (4, 9), (5, 2)]
    drawn = [[" ".join(generator.choice(WORDS, n)) for n in length] for length in lengths]
    return [(query, document) for query, document in drawn]


def export_all(folder: Path, cases: Sequence[TinyCase] = CASES) -> dict[str, Exported]:
    """Make and export `cases` in a process of its own; return them by name."""
    names = [case.name for case in cases]
    command = [sys.executable, "-W", "ignore", "-m", "tests.tiny_models", str(folder), *names]
    # Everything is in the folder: whatever would reach for the network should not.
    env = {**os.environ, "HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
    ran = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr[-4000:]
    return {case.name: read_exported(case, folder / case.name) for case in cases}


def read_exported(case: TinyCase, folder: Path) -> Exported:
    """Return what an export has left in its folder."""
    facts = read_facts(folder / "checkpoint")
    return Exported(case, folder, facts, np.load(folder / "expected.npy"))


def make_checkpoint(case: TinyCase, folder: Path) -> NDArray[np.float32]:
    """Write the checkpoint of `case` and return what sentence-transformers gives for its texts."""
    import torch
    from transformers import PreTrainedTokenizerFast

    plain = folder.with_name(f"{folder.name}-plain")
    torch.manual_seed(11)
    tokenizer = TOKENIZERS[case.family]()
    network = _network(case, tokenizer.get_vocab_size())
    with torch.no_grad():
        for parameter in network.parameters():
            # Far from the usual small start, so that every part of the network shows in the result.
            parameter.add_(torch.randn_like(parameter) * 0.15)
    network.to(getattr(torch, case.dtype)).save_pretrained(plain)
    wrapped = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer,
        model_max_length=MAX_TOKENS,
        model_input_names=_input_names(case),
        **special_tokens(case.family),
    )
    wrapped.save_pretrained(plain)
    rows = _save_reranker(plain, folder) if case.is_reranker else _save_encoder(case, plain, folder)
    if case.ready_opset:
        _make_ready(case, folder)
    shutil.rmtree(plain)
    return rows


def _save_encoder(case: TinyCase, plain: Path, folder: Path) -> NDArray[np.float32]:
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import (
        Dense,
        LayerNorm,
        Normalize,
        Pooling,
        Transformer,
    )

    kinds: dict[str, Callable[[], Any]] = {
        "Dense": lambda: Dense(HIDDEN, 24),
        "LayerNorm": lambda: LayerNorm(24 if "Dense" in case.modules else HIDDEN),
        "Normalize": Normalize,
    }
    later = [kinds[name]() for name in case.modules]
    for module in later:
        for parameter in module.parameters():
            torch.nn.init.normal_(parameter, 0.3, 0.5)
    transformer = Transformer(
        str(plain), max_seq_length=MAX_TOKENS, do_lower_case=case.wants_lower_case
    )
    model = SentenceTransformer(
        modules=[transformer, Pooling(HIDDEN, case.pooling), *later],
        device="cpu",
        prompts={"query": "find: ", "document": ""},
    )
    model.save(str(folder), create_model_card=False)
    # Loaded again in full precision: what was stored counts, not what was drawn.
    model = SentenceTransformer(str(folder), device="cpu").float()
    rows = model.encode(texts(), batch_size=1, normalize_embeddings=True)
    return np.asarray(rows, dtype=np.float32)


def _save_reranker(plain: Path, folder: Path) -> NDArray[np.float32]:
    import torch
    from sentence_transformers import CrossEncoder

    model = CrossEncoder(str(plain), num_labels=1, max_length=MAX_TOKENS, device="cpu")
    model.save(str(folder), create_model_card=False)
    scores = model.predict(pairs(), batch_size=1, activation_fn=torch.nn.Identity())
    return np.asarray(scores, dtype=np.float32).reshape(-1, 1)


def _make_ready(case: TinyCase, folder: Path) -> None:
    """Put optimum's plain export in the place of the weights."""
    from optimum.exporters.onnx import main_export

    task = "text-classification" if case.is_reranker else "feature-extraction"
    scratch = folder / "scratch"
    main_export(
        str(folder),
        scratch,
        task=task,
        opset=case.ready_opset,
        library_name="transformers",
        do_validation=False,
    )
    (folder / "onnx").mkdir()
    (scratch / "model.onnx").rename(folder / "onnx" / "model.onnx")
    shutil.rmtree(scratch)
    (folder / "model.safetensors").unlink()


def _network(case: TinyCase, vocabulary_size: int) -> Any:  # noqa: ANN401  # a PreTrainedModel
    import transformers

    name, figures = NETWORKS[case.family]
    config = getattr(transformers, f"{name}Config")(
        vocab_size=vocabulary_size, **({"num_labels": 1} if case.is_reranker else {}), **figures
    )
    suffix = "ForSequenceClassification" if case.is_reranker else "Model"
    suffix = "EncoderModel" if name == "T5" else suffix
    return getattr(transformers, f"{name}{suffix}")(config).eval()


def _input_names(case: TinyCase) -> list[str]:
    names = ["input_ids", "attention_mask"]
    return [*names, "token_type_ids"] if case.family == "bert" else names


def main(folder: Path, names: list[str]) -> None:
    """Make and export the cases of these names."""
    from embedserve.models.export import export

    for case in CASES:
        if case.name in names:
            output = folder / case.name
            output.mkdir(parents=True)
            np.save(output / "expected.npy", make_checkpoint(case, output / "checkpoint"))
            export(output / "checkpoint", output)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
