"""Brings a checkpoint's tokenizer.json over, with what sentence-transformers adds to it."""

import json
import shutil
from pathlib import Path
from typing import Any

from embedserve.models.json_file import read_object

TOKENIZER = "tokenizer.json"


def copy_tokenizer(source: Path, output: Path) -> None:
    """Write the tokenizer of the checkpoint `source` into the folder `output`.

    The same bytes, unless sentence_bert_config.json asks for lower case and the tokenizer does not
    do that by itself: then it does first of all.
    """
    wants_lower_case = read_object(source / "sentence_bert_config.json").get("do_lower_case")
    content = read_object(source / TOKENIZER)
    normalizer = content.get("normalizer")
    if not wants_lower_case or _has_lower_case(normalizer):
        shutil.copyfile(source / TOKENIZER, output / TOKENIZER)
        return
    steps = [{"type": "Lowercase"}, *([normalizer] if normalizer else [])]
    content["normalizer"] = {"type": "Sequence", "normalizers": steps}
    (output / TOKENIZER).write_text(json.dumps(content, ensure_ascii=False), "utf-8")


def _has_lower_case(normalizer: dict[str, Any] | None) -> bool:
    if normalizer is None:
        return False
    kind = normalizer.get("type")
    if kind == "Sequence":
        return any(_has_lower_case(step) for step in normalizer["normalizers"])
    return kind == "Lowercase" or (kind == "BertNormalizer" and bool(normalizer.get("lowercase")))
