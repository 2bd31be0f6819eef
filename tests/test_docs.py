"""What users can set, type or call is in the documentation, as the code has it."""

import ast
import warnings
from itertools import pairwise
from pathlib import Path
from typing import cast

import typer.core
import typer.main

from embedserve.api.app import AppLimits, create_framework_app
from embedserve.api.replies import Services
from embedserve.cli.app import COMMANDS, load
from embedserve.settings import MIB, PREFIX, Settings

ROOT = Path(__file__).parent.parent
OPERATIONS = ROOT / "docs" / "operations.md"
API = ROOT / "docs" / "api.md"

UNITS = {"_bytes": "bytes", "_tokens": "tokens", "_chars": "characters", "_s": "seconds"}
DEPENDS = {
    "home": "`indexes/data` in a project folder, else `~/.embedserve`",
    "definitions": "`indexes` in a project folder, else none",
}


def meanings() -> dict[str, str]:
    """Return what settings.py says below each setting."""
    tree = ast.parse((ROOT / "embedserve" / "settings.py").read_text(encoding="utf-8"))
    [body] = [
        node.body
        for node in tree.body
        if isinstance(node, ast.ClassDef) and node.name == "Settings"
    ]
    found = {}
    for field, text in pairwise(body):
        if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr):
            meaning = cast(str, cast(ast.Constant, text.value).value)
            found[cast(ast.Name, field.target).id] = " ".join(meaning.split())
    return found


def default_of(name: str) -> str:
    value = Settings.model_fields[name].default
    if name in DEPENDS:
        return DEPENDS[name]
    if value is None or value == ():
        return "none"
    if isinstance(value, int) and value >= MIB and value % MIB == 0:
        return f"`{value}` ({value // MIB} MiB)"
    return f"`{value}`"


def settings_table() -> list[str]:
    """Return the rows that docs/operations.md must hold; print them to paste them."""
    texts = meanings()
    rows = []
    for name in Settings.model_fields:
        unit = next((unit for end, unit in UNITS.items() if name.endswith(end)), "")
        cells = (f"`{name}`", f"`{PREFIX}{name.upper()}`", default_of(name), unit, texts[name])
        rows.append("| " + " | ".join(cells) + " |")
    return rows


def commands(command: object, path: str) -> list[str]:
    if not isinstance(command, typer.core.TyperGroup):
        return [path]
    return [
        name for word, part in command.commands.items() for name in commands(part, f"{path} {word}")
    ]


def test_every_setting_is_documented_as_the_code_has_it() -> None:
    lines = OPERATIONS.read_text(encoding="utf-8").splitlines()
    missing = [row for row in settings_table() if row not in lines]
    assert not missing, "docs/operations.md lacks:\n" + "\n".join(missing)
    documented = [line.split("`")[1] for line in lines if f"| `{PREFIX}" in line]
    assert documented == list(Settings.model_fields)


def test_every_command_is_documented() -> None:
    text = OPERATIONS.read_text(encoding="utf-8")
    names = [one for name in COMMANDS for one in commands(load(name), f"embedserve {name}")]
    assert len(names) > 10
    assert [name for name in names if f"| `{name}` |" not in text] == []


def test_every_route_is_documented() -> None:
    # The document is built from the routes alone; no service is called.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # GET and HEAD of one route share an operation id
        limits = AppLimits(1, (), is_loopback=True)
        paths = create_framework_app(cast(Services, object()), limits).openapi()["paths"]
    # HEAD is GET without the body, by definition of HTTP.
    routes = [
        f"{method.upper()} {path}"
        for path, methods in paths.items()
        for method in methods
        if method != "head"
    ]
    assert len(routes) > 15
    text = API.read_text(encoding="utf-8")
    assert [route for route in routes if f"`{route}`" not in text] == []


def test_operations_names_no_setting_that_does_not_exist() -> None:
    words = OPERATIONS.read_text(encoding="utf-8").replace("`", " ").replace("=", " ").split()
    named = {word.strip(".,;:()*") for word in words if word.startswith(PREFIX)}
    named -= {PREFIX, f"{PREFIX}*"}
    assert {name.removeprefix(PREFIX).lower() for name in named} <= {*Settings.model_fields, ""}
