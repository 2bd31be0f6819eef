"""Commands about models: pull, list, show, rm, embed."""

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from embedserve.bootstrap import open_engine
from embedserve.cli.client import Home, connect
from embedserve.cli.console import AsJson, errors, output, plain_table, print_json, size
from embedserve.errors import ModelError
from embedserve.settings import read_settings
from embedserve.store.home_lock import owner_of

Name = Annotated[str, typer.Argument(help="Model, such as all-minilm or hf.co/org/repo.")]


def pull(
    name: Name = "all-minilm",
    source: Annotated[
        Path | None,
        typer.Option("--from", help="Folder of a checkpoint to take instead.", show_default=False),
    ] = None,
    recipe: Annotated[str, typer.Option(help="int8 or fp32.")] = "int8",
    force: Annotated[bool, typer.Option(help="Export again what is installed.")] = False,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Fetch a model, export and quantize it, measure it, install it."""
    settings = read_settings({"home": home})
    is_plain = source is None and recipe == "int8" and not force
    owner = owner_of(settings.home)
    if owner and is_plain:
        with connect(home) as client:
            for step in client.lines("/api/pull", {"model": name}):
                if "error" in step:
                    raise ModelError(str(step["error"]))
                _progress(step["status"], step.get("completed"), step.get("total"))
            reply = client.post("/api/show", {"model": name})["embedserve"]
    elif owner:
        raise ModelError(
            f"A server runs on this home (process {owner.pid}); it would keep the model as it is. "
            "Stop it for --from, --recipe and --force."
        )
    else:
        with open_engine(settings) as engine:
            report = engine.models.pull(
                name,
                source=source.resolve() if source else None,
                recipe=recipe,
                is_forced=force,
                progress=_progress,
            )
            reply = report.facts
    if as_json:
        print_json(reply)
    else:
        output.print(_installed(reply), markup=False, highlight=False)


def list_models(home: Home = None, as_json: AsJson = False) -> None:
    """List the installed models."""
    with connect(home) as client:
        models = client.get("/api/tags")["models"]
    if as_json:
        print_json({"models": models})
        return
    if not models:
        errors.print("No model is installed. Run `embedserve pull all-minilm`.", markup=False)
        return
    table = plain_table("NAME", "SIZE", "RECIPE", "PARAMETERS", "LENGTH", "DIMENSIONS")
    for model in models:
        details = model["details"]
        table.add_row(
            model["name"],
            size(model["size"]),
            details["quantization_level"],
            details["parameter_size"],
            str(details["context_length"]),
            str(details["embedding_length"]),
        )
    output.print(table)


def show(name: Name, home: Home = None, as_json: AsJson = False) -> None:
    """Describe an installed model: source, recipe, how faithful it is, files."""
    with connect(home) as client:
        reply = client.post("/api/show", {"model": name})
    if as_json:
        print_json(reply)
        return
    table = plain_table()
    for key, value in reply["embedserve"].items():
        table.add_row(key.replace("_", " "), _shown(value))
    output.print(table)


def remove(name: Name, home: Home = None, as_json: AsJson = False) -> None:
    """Remove an installed model."""
    with connect(home) as client:
        client.delete("/api/delete", {"model": name})
    if as_json:
        print_json({"removed": name})
    else:
        output.print(f"removed {name}", markup=False, highlight=False)


def embed(
    texts: Annotated[
        list[str] | None, typer.Argument(help="Texts; without any, lines of standard input.")
    ] = None,
    model: Annotated[str, typer.Option(help="Installed model.")] = "all-minilm",
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Print the embedding of each text, one line of numbers each."""
    lines = texts or [line.rstrip("\n") for line in sys.stdin]
    with connect(home) as client:
        reply = client.post("/api/embed", {"model": model, "input": lines})
    if as_json:
        print_json(reply)
        return
    for vector in reply["embeddings"]:
        output.print(" ".join(f"{value:.8g}" for value in vector), highlight=False)


def _progress(stage: str, done: int | None, total: int | None) -> None:
    share = f" {size(done or 0)} of {size(total)}" if total else ""
    errors.print(f"{stage}{share}", markup=False, highlight=False)


def _installed(facts: dict[str, Any]) -> str:
    fidelity = facts["fidelity"]
    return (
        f"{facts['name']} is installed: {facts['recipe']}, {size(facts['size_bytes'])}, cosine to "
        f"fp32 {fidelity['cosine_mean']:.4f} on average (lowest {fidelity['cosine_min']:.4f})"
    )


def _shown(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key.replace('_', ' ')} {item}" for key, item in value.items())
    return str(value)
