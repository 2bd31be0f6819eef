"""The command that asks an index, and how hits are printed."""

import json
from collections.abc import Iterable, Sequence
from typing import Annotated, Any

import typer
from rich.text import Text

from embedserve.cli.client import Home, Json, connect
from embedserve.cli.console import AsJson, errors, output, print_json
from embedserve.cli.retrieval import IndexName
from embedserve.errors import InvalidRequestError
from embedserve.services.search_request import Mode

Way = Annotated[
    Mode | None,
    typer.Option("--mode", help="By vectors and words, or by one of them.", show_default=False),
]
Budget = Annotated[
    int | None,
    typer.Option(
        "--max-tokens",
        help="Instead of -k: fill so many tokens with the best chunks.",
        show_default=False,
    ),
]
Wanted = Annotated[
    str | None,
    typer.Option(
        "--filter", metavar="JSON", help='Documents to look in, such as {"kinds": ["pdf"]}.'
    ),
]
Least = Annotated[
    float | None,
    typer.Option("--min-score", help="Leave out hits of a smaller score.", show_default=False),
]
Reranker = Annotated[
    str | None,
    typer.Option("--rerank", metavar="MODEL", help="Order the best anew by this reranker."),
]


def query(  # noqa: PLR0913  # each parameter is an option of the command
    question: Annotated[str, typer.Argument(help="The question.")],
    index: IndexName = "default",
    k: Annotated[
        int | None, typer.Option("-k", help="Passages to show.", show_default=False)
    ] = None,
    mode: Way = None,
    max_tokens: Budget = None,
    wanted: Wanted = None,
    min_score: Least = None,
    rerank: Reranker = None,
    explain: Annotated[
        bool, typer.Option("--explain", help="Show ranks and scores of each leg, and times.")
    ] = False,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Print the passages that answer a question, best first, each with its score of 0 to 1."""
    asked = {
        "k": k,
        "mode": mode,
        "max_tokens": max_tokens,
        "filter": _parsed(wanted),
        "min_score": min_score,
        "rerank": rerank,
    }
    given = {key: value for key, value in asked.items() if value is not None}
    body = {"query": question, "explain": explain, **given}
    with connect(home) as client:
        reply = client.post("indexes", index, "query", body=body)
    print_json(reply) if as_json else _print(reply)


def _parsed(wanted: str | None) -> object:
    try:
        return None if wanted is None else json.loads(wanted)
    except ValueError as error:
        raise InvalidRequestError(
            f"`--filter` is not valid JSON ({error}); give an object such as "
            '{"metadata": {"year": {"gte": 2020}}}.'
        ) from error


def _print(reply: Json) -> None:
    for warning in reply["warnings"]:
        errors.print(f"Note: {warning}", style="yellow")
    if not reply["hits"]:
        errors.print(_nothing(reply))
    for rank, hit in enumerate(reply["hits"], start=1):
        _print_hit(rank, hit)
    if "dropped" in reply:
        took = ", ".join(f"{stage} {ms:g} ms" for stage, ms in reply["timings_ms"].items())
        output.print(Text(f"{reply['mode']}; {took}", style="dim"))
        for one in reply["dropped"]:
            output.print(Text(f"left out: chunk {one['id']}, {one['reason']}", style="dim"))


def _nothing(reply: Json) -> str:
    """Say why there is no hit, and what may help."""
    if reply["best_rejected"] is not None:
        return f"Nothing is good enough: the best has a score of {reply['best_rejected']:.3f}."
    near = [f"{word}: {', '.join(found)}?" for word, found in reply["suggestions"].items()]
    return "\n".join(["Nothing found.", *near])


def _print_hit(rank: int, hit: dict[str, Any]) -> None:
    document = hit["document"]
    where = document["path"] + _place(hit)
    heading = " > ".join(hit["heading"]) or document["title"]
    head = Text.assemble(
        (f"{rank}. ", "bold"), (heading, "bold"), (f"  {hit['score']:.3f}", "green")
    )
    output.print(head)
    output.print(Text(f"   {where} [{hit['start']}:{hit['end']}]", style="dim"))
    for more in filter(None, (_others(hit), _alike(hit), _standing(hit))):
        output.print(Text(f"   {more}", style="dim"))
    spans = hit.get("highlights", {}).get("spans", ())
    for line in emphasized(hit["text"], spans).split(allow_blank=True):
        output.print(Text("   ").append_text(line))
    output.print()


def emphasized(text: str, spans: Iterable[Sequence[int]]) -> Text:
    """Return a text with the words at these places in bold, where it is printed to a terminal."""
    body = Text(text)
    for start, end in spans:
        body.stylize("bold", start, end)
    return body


def _standing(hit: dict[str, Any]) -> str:
    """Tell where each leg has a hit, when that was asked for."""
    legs = hit.get("legs", {}).items()
    return ", ".join(f"{name} {leg['rank']}. ({leg['score']:.3f})" for name, leg in legs)


def _alike(hit: dict[str, Any]) -> str:
    count = hit["near_duplicates"]
    return f"and {count} almost the same" if count else ""


def _place(hit: dict[str, Any]) -> str:
    """Say where in its document a hit stands: by page, else by line, as editors open it."""
    if hit["page"]:
        return f", page {hit['page']}"
    return f":{hit['lines']['start']}" if hit["lines"] else ""


def _others(hit: dict[str, Any]) -> str:
    """Tell where else the text stands: the next place by its path."""
    if hit["places"] == 1:
        return ""
    more = hit["places"] - 2
    path = hit["also_in"][0]["document"]["path"]
    return f"also in {path}" + (f" and {more} more" if more else "")
