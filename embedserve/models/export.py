"""Checkpoint -> ONNX, in a process of its own: `python -m embedserve.models.export`.

    SOURCE    folder of the checkpoint
    OUTPUT    existing folder; gets model.onnx, tokenizer.json, and reference.onnx (the fp32 graph)
    --recipe  int8 or fp32

The only module that loads the training stack; the server starts it and never imports it.
"""

import argparse
import shutil
import tempfile
from pathlib import Path

import onnx
from optimum.exporters.onnx import main_export

from embedserve.models.checkpoint import TOKENIZER, read_facts
from embedserve.models.graph import pool_and_normalize, save
from embedserve.models.quantize import quantize

# Brings LayerNormalization as one operator, and ReduceMin and ReduceMax with their axes as an
# input, which `quantize` writes.
OPSET = 18


def export(source: Path, output: Path, recipe: str) -> None:
    """Write the graph of `recipe`, the fp32 graph, and the tokenizer into `output`.

    Graphs take ids and mask (batch, length) int64 and give `sentence_embedding`
    (batch, dimensions) float32, pooled and of unit length. The same checkpoint gives the same bytes
    as long as the exporter's version is the same.
    """
    facts = read_facts(source)
    with tempfile.TemporaryDirectory(dir=output) as scratch:
        main_export(
            str(source),
            output=scratch,
            task="feature-extraction",
            library_name="sentence_transformers",
            opset=OPSET,
            dtype="fp32",
            do_validation=False,
            trust_remote_code=False,
            local_files_only=True,
        )
        model = onnx.load(str(Path(scratch) / "model.onnx"))
    model = pool_and_normalize(model, pooling=facts.pooling, dimensions=facts.dimensions)
    save(model, output / "reference.onnx")
    save(quantize(model) if recipe == "int8" else model, output / "model.onnx")
    # The exporter writes a rearranged tokenizer.json; the checkpoint's own is the one that was
    # trained with.
    shutil.copyfile(source / TOKENIZER, output / TOKENIZER)


def main() -> None:
    """Run `export` with the arguments of the command line."""
    parser = argparse.ArgumentParser(prog="embedserve.models.export")
    parser.add_argument("source", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--recipe", choices=("int8", "fp32"), default="int8")
    arguments = parser.parse_args()
    export(arguments.source, arguments.output, arguments.recipe)


if __name__ == "__main__":
    main()
