"""The import rules of docs/architecture.md, read from the source."""

import ast
import pathlib

ROOT = pathlib.Path(__file__).parent.parent / "embedserve"

FLOOR = {
    "types": 0, "errors": 0, "setting_values": 0, "registry": 0.5,
    "settings": 0.5,
    "models": 1, "engine": 1, "ingest": 1, "store": 1, "ranking": 1,
    "services": 2, "api": 3, "bootstrap": 4, "cli": 5, "__main__": 6,
}  # fmt: skip

# Heavy packages, and the only places that may import them.
FENCED = {
    "onnxruntime": ["engine/onnxruntime_backend.py"],
    "openvino": ["engine/openvino_backend.py"],
    "tokenizers": ["engine/tokenizer.py"],
    "chromadb": ["store/chroma_package.py"],
    "torch": ["models/export.py"],
    "optimum": ["models/export.py"],
    "transformers": ["models/export.py"],
    "sentence_transformers": ["models/export.py"],
    "onnx": ["models/"],
    "huggingface_hub": ["models/hub"],
    "kreuzberg": ["ingest/library.py"],
    "pypdf": ["ingest/pdf_form.py"],
    "prometheus_client": ["services/metrics.py"],
    "fastapi": ["api/"],
    "mcp": ["api/mcp_protocol.py", "cli/mcp.py"],
    "httpx2": ["cli/mcp.py"],
    "jwt": ["api/signed_tokens.py"],
    "typer": ["cli/"],
    "rich": ["cli/"],
    "pydantic_settings": ["settings.py"],
}


def imports(path: pathlib.Path) -> list[str]:
    names: list[str] = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names += [f"{node.module}.{alias.name}" for alias in node.names]
    return names


def test_imports_point_downwards_and_floor_one_is_blind_to_itself() -> None:
    wrong = []
    for path in ROOT.rglob("*.py"):
        here = path.relative_to(ROOT).parts[0].removesuffix(".py")
        for name in imports(path):
            package, _, rest = name.partition(".")
            room = rest.partition(".")[0]
            if package != "embedserve" or room == here or room not in FLOOR:
                continue
            allowed = FLOOR[room] < FLOOR.get(here, 0)
            if room == "settings":
                allowed = here in ("bootstrap", "cli")
            if here == "api":
                allowed = room in ("services", "types", "errors")
            if not allowed:
                wrong.append(f"{here} imports {name}")
    assert wrong == []


def test_heavy_packages_stay_behind_their_fence() -> None:
    wrong = []
    for path in ROOT.rglob("*.py"):
        place = path.relative_to(ROOT).as_posix()
        for name in imports(path):
            fence = FENCED.get(name.partition(".")[0])
            if fence and not any(place.startswith(allowed) for allowed in fence):
                wrong.append(f"{place} imports {name}")
    assert wrong == []
