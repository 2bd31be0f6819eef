"""`embedserve pull`: by the server of the home if one runs, else in this process."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import BarColumn, DownloadColumn, TextColumn, TransferSpeedColumn
from rich.progress import Progress as Bars

from embedserve.bootstrap import open_engine, read_all
from embedserve.cli.client import Home, Json, connect
from embedserve.cli.console import AsJson, errors, print_result, size
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


@contextmanager
def following() -> Iterator[Progress]:
    """Show progress on standard error: a bar on a terminal, a line for each stage elsewhere."""
    if not errors.is_terminal:
        yield _Lines().tell
        return
    columns = (
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TextColumn("{task.fields[of]}"),
    )
    with Bars(*columns, console=errors, transient=True) as bars:
        yield _Bar(bars).tell


class _Lines:
    """A line when a stage begins, and one when a stage that is counted has ended."""

    def __init__(self) -> None:
        self._stage = ""

    def tell(self, stage: str, done: int | None, total: int | None) -> None:
        if stage != self._stage:
            self._stage = stage
            errors.print(f"{stage} ({size(total)})" if total else stage)
        elif total and done == total:
            errors.print(f"{stage}: done")


class _Bar:
    """A line for each stage above one bar for the file on its way."""

    def __init__(self, bars: Bars) -> None:
        self._bars = bars
        self._stage = ""
        self._task = bars.add_task("", visible=False, of="")

    def tell(self, stage: str, done: int | None, total: int | None) -> None:
        if stage != self._stage:
            self._stage = stage
            errors.print(stage)
            self._bars.reset(self._task, visible=False, of=stage)
        if total:
            self._bars.update(self._task, completed=done or 0, total=total, visible=True)


def installed_sentence(facts: Json) -> str:
    """Say in a few words what was installed, how good it is and why it was chosen."""
    fidelity, performance = facts["fidelity"], facts["performance"]
    sentence = (
        f"{facts['name']} is installed: {facts['recipe']} on {performance['engine_version']}, "
        f"{size(facts['size_bytes'])}, cosine to fp32 {fidelity['cosine_mean']:.4f} on average "
        f"(lowest {fidelity['cosine_min']:.4f}), top-10 overlap {fidelity['top10_overlap']:.3f}, "
        f"{performance['tokens_per_s_mixed']:,.0f} tokens/s; {why_chosen(facts)}"
    )
    if below := facts["below_gate"]:
        sentence += f". Below its gate, and installed as asked: {'; '.join(below)}"
    return sentence


def why_chosen(facts: Json) -> str:
    """Say why this candidate was chosen among those that were tried."""
    tried = facts["candidates"]
    passed = sum(one["tokens_per_s_mixed"] is not None for one in tried)
    if any(one["verdict"].startswith("installed, below") for one in tried):
        return f"nothing that was tried passed ({len(tried)} tried)"
    if passed > 1:
        return f"the fastest of {passed} that passed ({len(tried)} tried)"
    if len(tried) > 1:
        return f"the only one of {len(tried)} tried that passed"
    return "nothing else was tried"


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
