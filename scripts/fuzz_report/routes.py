"""What is attacked: every route of the OpenAPI document, with a body that would be right."""

from dataclasses import dataclass
from typing import Any

MODEL = "all-minilm"
ABSENT = "fuzz-absent"
"""A name that nothing has; what deletes or fetches is only ever asked for this."""

BODIES: dict[str, dict[str, Any]] = {
    "/api/embed": {
        "model": MODEL,
        "input": ["one", "two"],
        "truncate": True,
        "dimensions": 64,
        "keep_alive": "5m",
        "options": {"num_ctx": 64},
    },
    "/api/embeddings": {"model": MODEL, "prompt": "one", "keep_alive": 300, "options": {}},
    "/v1/embeddings": {
        "model": MODEL,
        "input": ["one"],
        "encoding_format": "base64",
        "dimensions": 64,
        "user": "u",
    },
    "/api/show": {"model": MODEL, "verbose": False},
    "/api/copy": {"source": ABSENT, "destination": f"{ABSENT}-2"},
    "/api/create": {"model": f"{ABSENT}-3", "from": ABSENT, "stream": False},
    "/api/delete": {"model": ABSENT},
    "/api/pull": {"model": f"hf.co/{ABSENT}", "stream": False},
    "/api/generate": {"model": ABSENT, "prompt": "", "keep_alive": 0},
}
"""Right bodies of the routes whose bodies the document does not describe, or whose values must
leave the server as it is."""

CHANGING = {"/api/copy", "/api/create", "/api/delete", "/api/pull", "/api/push"}
"""Routes whose bodies never name the model, or the attack would take away its own ground."""

_BY_TYPE: dict[str, Any] = {
    "string": ABSENT,
    "integer": 3,
    "number": 0.5,
    "boolean": False,
    "array": ["one", "two"],
    "object": {},
}


@dataclass(frozen=True)
class Route:
    """One operation, with its path filled in."""

    method: str
    path: str
    body: dict[str, Any] | None


def routes_of(document: dict[str, Any]) -> list[Route]:
    """Return every operation of an OpenAPI document."""
    found = []
    for template, operations in document["paths"].items():
        path = template
        while "{" in path:
            before, _, rest = path.partition("{")
            path = before + ABSENT + rest.partition("}")[2]
        for method, operation in operations.items():
            body = BODIES.get(template) or _example(operation, document)
            found.append(Route(method.upper(), path, body))
    return found


def _example(operation: dict[str, Any], document: dict[str, Any]) -> dict[str, Any] | None:
    """Return a body by the operation's schema, None where it takes none."""
    content = operation.get("requestBody", {}).get("content", {})
    for media in content.values():
        schema = _resolved(media.get("schema", {}), document)
        # A schema that brings its own definitions refers to itself.
        whole = {**document, "$defs": schema.get("$defs", {})}
        return {
            name: _value(_resolved(part, whole), name)
            for name, part in schema.get("properties", {}).items()
        }
    return None


def _resolved(schema: dict[str, Any], document: dict[str, Any]) -> dict[str, Any]:
    while reference := schema.get("$ref"):
        target: Any = document
        for part in reference.removeprefix("#/").split("/"):
            target = target[part]
        schema = target
    return schema


def _value(schema: dict[str, Any], name: str) -> Any:  # noqa: ANN401  any JSON value
    if name == "model":
        return MODEL
    if "example" in schema or "default" in schema:
        return schema.get("example", schema.get("default"))
    choices = schema.get("anyOf") or schema.get("oneOf") or [schema]
    kind = choices[0].get("type", "string")
    return _BY_TYPE.get(kind[0] if isinstance(kind, list) else kind)
