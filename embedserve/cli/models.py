"""Commands about models: pull, list, show, rm, embed."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from embedserve.bootstrap import open_engine
from embedserve.cli.client import Home, Json, connect
from embedserve.cli.console import (
    AsJson,
    errors,
    output,
    print_json,
    print_result,
    print_table,
    size,
)
from embedserve.errors import InvalidRequestError, ModelError
from embedserve.services.models import PullRequest
from embedserve.settings import read_settings
from embedserve.store.home_lock import owner_of

Name = Annotated[str, typer.Argument(help="Model, such as all-minilm or hf.co/org/repo.")]


def pull(
    name: Name = "all-minilm",
    source: Annotated[
        Path | None,
        typer.Option("--from", help="Folder of a checkpoint to take instead.", show_default=False),
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option(help="Precision, such as int8, bf16 or fp32; else the fastest faithful one."),
    ] = None,
    force: Annotated[bool, typer.Option(help="Export again what is installed.")] = False,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Fetch a model, export and quantize it, measure it, install it."""
    wanted = PullRequest(name, source.resolve() if source else None, recipe, is_forced=force)
    settings = read_settings({"home": home})
    owner = owner_of(settings.home)
    if owner is None:
        with open_engine(settings) as engine:
            facts = engine.models.pull(wanted, _progress).facts
    elif wanted == PullRequest(name):
        facts = _pull_through_server(name, home)
    else:
        raise ModelError(
            f"A server runs on this home (process {owner.pid}); it would keep the model as it is. "
            "Stop it for --from, --recipe and --force."
        )
    print_result(facts, _installed(facts), as_json=as_json)


def list_models(home: Home = None, as_json: AsJson = False) -> None:
    """List the installed models."""
    with connect(home) as client:
        models = client.get("api", "tags")["models"]
    if as_json:
        print_json({"models": models})
        return
    if not models:
        errors.print("No model is installed. Run `embedserve pull all-minilm`.")
        return
    rows = []
    for model in models:
        details = model["details"]
        keys = ("quantization_level", "parameter_size", "context_length", "embedding_length")
        rows.append([model["name"], size(model["size"]), *(str(details[key]) for key in keys)])
    print_table(rows, "NAME", "SIZE", "RECIPE", "PARAMETERS", "LENGTH", "DIMENSIONS")


def show(name: Name, home: Home = None, as_json: AsJson = False) -> None:
    """Describe an installed model: source, recipe, how faithful it is, files."""
    with connect(home) as client:
        reply = client.post("api", "show", body={"model": name})
    if as_json:
        print_json(reply)
        return
    facts = reply["embedserve"].items()
    print_table([[key.replace("_", " "), _shown(value)] for key, value in facts])


def remove(name: Name, home: Home = None, as_json: AsJson = False) -> None:
    """Remove an installed model."""
    with connect(home) as client:
        client.delete("api", "delete", body={"model": name})
    print_result({"removed": name}, f"removed {name}", as_json=as_json)


def embed(
    texts: Annotated[
        list[str] | None, typer.Argument(help="Texts; without any, lines of standard input.")
    ] = None,
    model: Annotated[str, typer.Option(help="Installed model.")] = "all-minilm",
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Print the embedding of each text, one line of numbers each."""
    lines = texts or _standard_input()
    with connect(home) as client:
        reply = client.post("api", "embed", body={"model": model, "input": lines})
    if as_json:
        print_json(reply)
        return
    for vector in reply["embeddings"]:
        output.print(" ".join(f"{value:.8g}" for value in vector))


def _pull_through_server(name: str, home: Path | None) -> Json:
    with connect(home, is_long=True) as client:
        for step in client.lines("api", "pull", body={"model": name}):
            if "error" in step:
                raise ModelError(str(step["error"]))
            _progress(step["status"], step.get("completed"), step.get("total"))
        facts: Json = client.post("api", "show", body={"model": name})["embedserve"]
    return facts


def _standard_input() -> list[str]:
    try:
        return [line.rstrip("\n") for line in sys.stdin]
    except UnicodeDecodeError as error:
        raise InvalidRequestError(
            f"Standard input is not valid UTF-8 (byte {error.start}). Convert it with `iconv`."
        ) from error


def _progress(stage: str, done: int | None, total: int | None) -> None:
    share = f" {size(done or 0)} of {size(total)}" if total else ""
    errors.print(f"{stage}{share}")


def _installed(facts: Json) -> str:
    fidelity = facts["fidelity"]
    return (
        f"{facts['name']} is installed: {facts['recipe']}, {size(facts['size_bytes'])}, cosine to "
        f"fp32 {fidelity['cosine_mean']:.4f} on average (lowest {fidelity['cosine_min']:.4f})"
    )


def _shown(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.4f}"
    if isinstance(value, dict):
        return ", ".join(f"{key.replace('_', ' ')} {_shown(item)}" for key, item in value.items())
    return str(value)
