"""`embedserve pull`: by the server of the home if one runs, else in this process."""

from pathlib import Path
from typing import Annotated, Any

import typer

from embedserve.bootstrap.engine import open_engine
from embedserve.bootstrap.sources import read_all
from embedserve.cli.client import Home, Json, connect
from embedserve.cli.console import AsJson, print_result
from embedserve.cli.pull_display import following, installed_sentence
from embedserve.errors import ModelError
from embedserve.models.checkpoint import Overrides
from embedserve.services.models import Progress, PullRequest
from embedserve.store.home_lock import owner_of

PulledName = Annotated[str, typer.Argument(help="Model, such as all-minilm or hf.co/org/repo.")]
Source = Annotated[
    Path | None,
    typer.Option("--from", help="Folder of a checkpoint to take instead.", show_default=False),
]
Recipe = Annotated[
    str | None,
    typer.Option(help="Precision, such as int8, bf16 or fp32; else the fastest faithful one."),
]
Engine = Annotated[str | None, typer.Option(help="openvino or onnxruntime; else the faster one.")]
Pooling = Annotated[str | None, typer.Option(help="How tokens are pooled: mean, cls, ...")]
MaxTokens = Annotated[int | None, typer.Option(help="Longest text, special tokens included.")]
QueryPrompt = Annotated[str | None, typer.Option(help="What goes before queries.")]
DocumentPrompt = Annotated[str | None, typer.Option(help="What goes before documents.")]
IgnoreOnnx = Annotated[
    bool, typer.Option("--ignore-onnx", help="Export the weights, not the ready ONNX file.")
]
AcceptLoss = Annotated[
    bool, typer.Option("--accept-loss", help="Install what fails its recipe's gate all the same.")
]
Force = Annotated[bool, typer.Option("--force", help="Export again what is installed.")]


def pull(  # noqa: PLR0913  # each parameter is an option of the command
    name: PulledName = "all-minilm",
    source: Source = None,
    recipe: Recipe = None,
    engine: Engine = None,
    pooling: Pooling = None,
    max_tokens: MaxTokens = None,
    query_prompt: QueryPrompt = None,
    document_prompt: DocumentPrompt = None,
    ignore_onnx: IgnoreOnnx = False,
    accept_loss: AcceptLoss = False,
    force: Force = False,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Fetch a model, export and quantize it, measure it, install the fastest faithful form."""
    overrides = Overrides(pooling, max_tokens, query_prompt, document_prompt, ignore_onnx)
    wanted = PullRequest(
        name,
        source.resolve() if source else None,
        recipe,
        engine,
        is_forced=force,
        accepts_loss=accept_loss,
        overrides=overrides,
    )
    with following() as progress:
        facts = _pull(wanted, home, progress)
    print_result(facts, installed_sentence(facts), as_json=as_json)


def _pull(wanted: PullRequest, home: Path | None, progress: Progress) -> Json:
    settings = read_all({"home": home}).settings
    owner = owner_of(settings.home)
    if owner is None:
        with open_engine(settings) as engine:
            return engine.models.pull(wanted, progress).facts
    if wanted.source is not None:
        raise ModelError(
            f"A server runs on this home (process {owner.pid}), and over HTTP no folder is "
            "pulled. Stop it for `--from`."
        )
    return _pull_through_server(wanted, home, progress)


def _pull_through_server(wanted: PullRequest, home: Path | None, progress: Progress) -> Json:
    with connect(home, is_long=True) as client:
        for step in client.lines("api", "pull", body=_body(wanted)):
            if "error" in step:
                raise ModelError(str(step["error"]))
            progress(step["status"], step.get("completed"), step.get("total"))
        facts: Json = client.post("api", "show", body={"model": wanted.name})["embedserve"]
    return facts


def _body(wanted: PullRequest) -> dict[str, Any]:
    told = wanted.overrides
    return {
        "model": wanted.name,
        "recipe": wanted.recipe,
        "engine": wanted.engine,
        "force": wanted.is_forced,
        "accept_loss": wanted.accepts_loss,
        "pooling": told.pooling,
        "max_tokens": told.max_tokens,
        "query_prompt": told.query_prompt,
        "document_prompt": told.document_prompt,
        "ignore_onnx": told.ignores_onnx,
    }
