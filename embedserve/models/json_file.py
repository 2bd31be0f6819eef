"""JSON files of a checkpoint, read with errors that name the file."""

import json
from pathlib import Path
from typing import Any

from embedserve.errors import ModelError


def read_object(path: Path) -> dict[str, Any]:
    """Return the object in a JSON file; an absent file is an empty object."""
    value = _read(path)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ModelError(f"`{path}` is not a JSON object. Fetch it again.")
    return value


def read_objects(path: Path) -> list[dict[str, Any]] | None:
    """Return the list of objects in a JSON file, or None where there is no such file."""
    value = _read(path)
    if value is None:
        return None
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise ModelError(f"`{path}` is not a list of JSON objects. Fetch it again.")
    return value


def _read(path: Path) -> object:
    if not path.is_file():
        return None
    try:
        value: object = json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise ModelError(f"`{path}` is not JSON: {error}. Fetch it again.") from error
    return value
