"""Commands about installed models: list, show, verify, copy, rm, embed."""

from dataclasses import asdict
from io import StringIO
from typing import Annotated

import typer

from embedserve.bootstrap.sources import read_all
from embedserve.cli.client import Home, connect
from embedserve.cli.console import (
    AsJson,
    errors,
    output,
    print_json,
    print_result,
    print_table,
    size,
    standard_input,
)
from embedserve.cli.model_card import print_card, print_model, print_verification
from embedserve.cli.pull_display import following
from embedserve.errors import InvalidRequestError, ModelError

UPSTREAM = {"engine": "upstream", "recipe": "-"}
RAG = "rag"
"""The engine of what answers from an index: a chat model, which is not installed."""

Name = Annotated[str, typer.Argument(help="Installed model, such as all-minilm.")]


def list_models(home: Home = None, as_json: AsJson = False) -> None:
    """List the installed models and how much of the disk they take."""
    with connect(home) as client:
        reply = client.get("api", "tags")
    if as_json:
        print_json(reply)
        return
    models = [one for one in reply["models"] if one.get("embedserve", UPSTREAM)["engine"] != RAG]
    if not models:
        errors.print("No model is installed. Run `embedserve pull all-minilm`.")
        return
    rows = []
    for model in models:
        # What the server's upstream adds to the list has less to say.
        details, ours = model.get("details", {}), model.get("embedserve", UPSTREAM)
        keys = ("parameter_size", "context_length", "embedding_length")
        figures = [str(details.get(key, "-")) for key in keys]
        serves = [ours["engine"], ours["recipe"]]
        rows.append([model["name"], size(model.get("size", 0)), *serves, *figures])
    print_table(rows, "NAME", "SIZE", "ENGINE", "RECIPE", "PARAMETERS", "LENGTH", "DIMENSIONS")
    output.print(f"{size(reply['embedserve']['disk_bytes'])} on disk")


def show(
    name: Name,
    fidelity: Annotated[
        bool, typer.Option("--fidelity", help="Print the fidelity card alone.")
    ] = False,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Describe an installed model: what serves, how faithful and fast it is, and why it."""
    with connect(home) as client:
        reply = client.post("api", "show", body={"model": name})
    facts = reply.get("embedserve")
    if facts and facts.get("engine") == RAG:
        raise InvalidRequestError(
            f"`{name}` answers from the index `{facts['index']}`. "
            f"See `embedserve index show {facts['index']}`."
        )
    if facts is None:
        raise InvalidRequestError(f"`{name}` is the upstream's model, not one of embedserve's.")
    if as_json:
        keys = ("fidelity", "performance", "size_bytes", "below_gate")
        print_json({key: facts[key] for key in keys} if fidelity else reply)
    elif fidelity:
        print_card(facts)
    else:
        print_model(facts)


def verify(name: Name, home: Home = None, as_json: AsJson = False) -> None:
    """Check a model's files and canary, and measure it again here; status 1 if it differs."""
    from embedserve.bootstrap.engine import open_engine  # heavy, and of this command alone

    with open_engine(read_all({"home": home}).settings) as engine, following() as progress:
        found = engine.models.verify(name, progress)
    if as_json:
        print_json(asdict(found))
    else:
        print_verification(asdict(found))
    if found.failures:
        raise ModelError(
            f"Model `{found.name}` is not what its manifest says: {'; '.join(found.failures)}. "
            f"Run `embedserve pull {found.name} --force` on this machine."
        )
    if not as_json:
        output.print(f"{found.name} is as it was when it was pulled, within tolerance")


def copy(source: Name, target: Name, home: Home = None, as_json: AsJson = False) -> None:
    """Give an installed model another name; both share one loaded graph."""
    with connect(home) as client:
        client.post("api", "copy", body={"source": source, "destination": target})
    print_result({"source": source, "copy": target}, f"{source} is {target} too", as_json=as_json)


def remove(name: Name, home: Home = None, as_json: AsJson = False) -> None:
    """Remove an installed model; requests that use it go on to their end."""
    with connect(home) as client:
        client.delete("api", "delete", body={"model": name})
    print_result({"removed": name}, f"removed {name}", as_json=as_json)


def embed(
    texts: Annotated[
        list[str] | None, typer.Argument(help="Texts; without any, lines of standard input.")
    ] = None,
    model: Annotated[str, typer.Option(help="Installed model.")] = "all-minilm",
    dimensions: Annotated[
        int | None, typer.Option(help="Leading dimensions to keep.", show_default=False)
    ] = None,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Print the embedding of each text, one line of numbers each."""
    body = {
        "model": model,
        "input": texts or [line.rstrip("\n") for line in StringIO(standard_input())],
        "dimensions": dimensions,
    }
    with connect(home) as client:
        reply = client.post("api", "embed", body=body)
    # Ollama's dialect answers with the whole vector where it has fewer numbers than were asked for.
    found = min(map(len, reply["embeddings"]), default=0)
    if dimensions is not None and not 0 < dimensions <= found:
        raise InvalidRequestError(f"`{model}` has {found} dimensions; ask for 1 to {found}.")
    if as_json:
        print_json(reply)
        return
    for warning in reply.get("warnings", ()):
        errors.print(f"Note: {warning}", style="yellow")
    for vector in reply["embeddings"]:
        output.print(" ".join(f"{value:.8g}" for value in vector))
