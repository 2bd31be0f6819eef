"""A checkpoint of BERT-base's shape with random weights: its size and speed are the real ones.

`python -m scripts.quantization_report.base_model TOKENIZER FOLDER`, in a process of its own, which
loads the training stack. TOKENIZER is a checkpoint whose vocabulary is taken.
"""

import json
import shutil
import subprocess
import sys
from pathlib import Path

from scripts.quantization_report.figures import BASE, Shape

_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")
_HEAD_WIDTH = 64


def make_in_process(tokenizer: Path, folder: Path) -> None:
    """Make the checkpoint without loading the training stack here."""
    command = [sys.executable, "-W", "ignore", "-m", __name__, str(tokenizer), str(folder)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def make(tokenizer: Path, folder: Path, shape: Shape = BASE) -> None:
    """Write a checkpoint as sentence-transformers lays it out: mean pooling, unit length."""
    import torch
    from transformers import BertConfig, BertModel

    torch.manual_seed(3)
    config = BertConfig(  # type: ignore[no-untyped-call]
        vocab_size=shape.vocabulary,
        hidden_size=shape.hidden,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.hidden // _HEAD_WIDTH,
        intermediate_size=4 * shape.hidden,
        max_position_embeddings=shape.positions,
    )
    network = BertModel(config, add_pooling_layer=False)  # type: ignore[no-untyped-call]
    network.save_pretrained(folder)
    for name in _TOKENIZER_FILES:
        shutil.copyfile(tokenizer / name, folder / name)
    places = ("", "1_Pooling", "2_Normalize")
    modules = [
        {"idx": n, "name": str(n), "path": place, "type": f"sentence_transformers.models.{kind}"}
        for n, (place, kind) in enumerate(
            zip(places, ("Transformer", "Pooling", "Normalize"), strict=True)
        )
    ]
    pooling = {"word_embedding_dimension": shape.hidden, "pooling_mode_mean_tokens": True}
    (folder / "1_Pooling").mkdir()
    _write(folder / "modules.json", modules)
    _write(folder / "1_Pooling" / "config.json", pooling)
    _write(folder / "sentence_bert_config.json", {"max_seq_length": shape.positions})


def _write(path: Path, content: object) -> None:
    path.write_text(json.dumps(content), encoding="utf-8")


if __name__ == "__main__":
    make(Path(sys.argv[1]), Path(sys.argv[2]))
