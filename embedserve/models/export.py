"""Checkpoint -> ONNX, in a process of its own: `python -m embedserve.models.export`.

    SOURCE    folder of the checkpoint
    OUTPUT    existing folder; gets reference.onnx (the fp32 graph) and tokenizer.json
    --pooling, --max-tokens, --query-prompt, --document-prompt   what the checkpoint does not say
    --ignore-onnx                                                export its weights all the same

The only module that loads the training stack; the server starts it and never imports it. A ready
ONNX file in the checkpoint is taken instead, and then the training stack is not needed.
"""

import argparse
import os
import tempfile
import threading
from pathlib import Path
from typing import Any

import onnx
from onnx import ModelProto

from embedserve.errors import ModelError
from embedserve.models.checkpoint import Facts, Overrides, read_facts
from embedserve.models.graph import save
from embedserve.models.head import attach_head
from embedserve.models.manifest import REFERENCE_FILE
from embedserve.models.ready_onnx import load_ready
from embedserve.models.tokenizer_file import copy_tokenizer
from embedserve.models.weights import ready_graph

# Brings LayerNormalization as one operator, and ReduceMin and ReduceMax with their axes as an
# input, which the recipes write.
OPSET = 18


def export(source: Path, output: Path, overrides: Overrides | None = None) -> ModelProto:
    """Write the fp32 graph `reference.onnx` and the tokenizer into `output`; return the graph.

    It takes ids and mask (batch, length) int64 and gives `sentence_embedding` (batch, dimensions)
    float32, pooled and of unit length. A reranker gives
    `score` (batch, 1), a logit. Above 1.8 GB the weights are in `reference.onnx.data`. The same
    checkpoint gives the same bytes as long as the exporter's version is the same.
    """
    told = overrides or Overrides()
    facts = read_facts(source, told)
    ready = None if told.ignores_onnx else ready_graph(source)
    model = load_ready(ready, opset=OPSET) if ready else _trace(source, output, facts)
    model = attach_head(model, facts, source)
    save(model, output / REFERENCE_FILE)
    # The exporter writes a rearranged tokenizer.json; the checkpoint's own is the one that was
    # trained with.
    copy_tokenizer(source, output)
    return model


def _trace(source: Path, output: Path, facts: Facts) -> ModelProto:
    """Let optimum turn the weights into a graph of their last hidden state or logits."""
    # Imported here: a ready graph is exported without any of it.
    import torch
    from optimum.exporters.onnx.convert import export as trace
    from optimum.exporters.onnx.model_configs import DistilBertOnnxConfig
    from optimum.exporters.tasks import TasksManager
    from transformers import AutoModel, AutoModelForSequenceClassification, T5EncoderModel

    loader: Any = T5EncoderModel if facts.family == "t5" else AutoModel
    task = "feature-extraction"
    if facts.kind == "reranker":
        loader, task = AutoModelForSequenceClassification, "text-classification"
    # Eager attention masks with the least float, where others leave NaN in rows without a token.
    model = loader.from_pretrained(
        source,
        dtype=torch.float32,
        attn_implementation="eager",
        local_files_only=True,
        trust_remote_code=False,
        use_safetensors=True,
    ).eval()
    if facts.family == "t5":
        # Known to the exporter with its decoder only; the encoder takes what DistilBERT takes.
        settings = DistilBertOnnxConfig(model.config, task=task)
    else:
        settings = TasksManager.get_exporter_config_constructor("onnx", model, task=task)(
            model.config
        )
    with tempfile.TemporaryDirectory(dir=output) as scratch:
        path = Path(scratch) / "model.onnx"
        trace(model, settings, path, opset=OPSET)
        return onnx.load(str(path))


def quantize_dynamic(reference: Path, output: Path) -> None:
    """Write recipe `int8-dynamic`: what optimum's own quantizer makes of the graph `reference`.

    Raises ModelError where the exporting stack is not installed.
    """
    try:
        from optimum.onnxruntime import ORTQuantizer
        from optimum.onnxruntime.configuration import AutoQuantizationConfig
    except ModuleNotFoundError as error:
        raise ModelError(
            f"Recipe `int8-dynamic` needs the package `{error.name}`, which is not installed. "
            "Install it with `pip install 'embedserve[export]'`."
        ) from error
    quantizer = ORTQuantizer(reference)
    settings = AutoQuantizationConfig.avx512_vnni(is_static=False, per_channel=True)
    with tempfile.TemporaryDirectory(dir=output.parent) as scratch:
        quantizer.quantize(quantization_config=settings, save_dir=scratch)
        next(Path(scratch).glob("*.onnx")).rename(output)


def _end_with_parent() -> None:
    """Wait until standard input ends, as it does with the process that asked, and end too."""
    while os.read(0, 1):  # not sys.stdin, whose lock a thread must not hold when Python ends
        pass
    os._exit(1)


def main() -> None:
    """Run `export` with the arguments of the command line, while standard input is open."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    parser = argparse.ArgumentParser(prog="embedserve.models.export")
    parser.add_argument("source", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--pooling")
    parser.add_argument("--max-tokens", type=int)
    parser.add_argument("--query-prompt")
    parser.add_argument("--document-prompt")
    parser.add_argument("--ignore-onnx", action="store_true")
    told = parser.parse_args()
    overrides = Overrides(
        pooling=told.pooling,
        max_tokens=told.max_tokens,
        query_prompt=told.query_prompt,
        document_prompt=told.document_prompt,
        ignores_onnx=told.ignore_onnx,
    )
    export(told.source, told.output, overrides)


if __name__ == "__main__":
    main()
