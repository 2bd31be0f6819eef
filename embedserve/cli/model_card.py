"""How a model is printed for people: what serves, how faithful and fast it is, and why it."""

from collections.abc import Sequence

from embedserve.cli.client import Json
from embedserve.cli.console import output, print_table, size
from embedserve.cli.pull_display import why_chosen

_FIDELITY = {
    "cosine_mean": "cosine to fp32, mean",
    "cosine_min": "cosine to fp32, lowest",
    "top1_agreement": "top-1 agreement",
    "top10_overlap": "top-10 overlap",
}
_SPEEDS = {
    "tokens_per_s_16": "tokens/s, 16 tokens a text",
    "tokens_per_s_128": "tokens/s, 128 tokens a text",
    "tokens_per_s_mixed": "tokens/s, mixed lengths",
}


def print_model(facts: Json) -> None:
    """Print the whole report of one model."""
    print_table(_served(facts))
    output.print()
    print_card(facts)
    output.print()
    output.print(f"Chosen: {why_chosen(facts)}.")
    print_table(_candidates(facts), "ENGINE", "RECIPE", "TOKENS/S", "METHOD", "VERDICT")


def print_card(facts: Json) -> None:
    """Print the fidelity card alone."""
    print_table([*figures(facts), ["size", size(facts["size_bytes"])]])
    for figure in facts["below_gate"]:
        output.print(f"below the gate of {facts['recipe']}: {figure}")


def figures(facts: Json) -> list[list[str]]:
    """Return a row of name and value for each figure that is measured."""
    fidelity, performance = facts["fidelity"], facts["performance"]
    rows = []
    if fidelity:
        rows += [[name, f"{fidelity[key]:.5f}"] for key, name in _FIDELITY.items()]
    rows += [[name, f"{performance[key]:,.0f}"] for key, name in _SPEEDS.items()]
    is_invariant = performance["is_batch_invariant"]
    return [
        *rows,
        ["threads", str(performance["threads"])],
        ["resident memory", size(performance["resident_bytes"])],
        ["same bits in any batch", "yes" if is_invariant else "NO: vectors depend on the batch"],
        ["engine", performance["engine_version"]],
        ["CPU", performance["cpu"]],
    ]


def print_verification(reply: Json) -> None:
    """Print what was stored beside what was measured."""
    output.print(f"digests: as in the manifest; canary: {reply['canary']}")
    then = {"fidelity": reply["stored_fidelity"], "performance": reply["stored_performance"]}
    stored = figures(then)
    measured = dict(figures(reply))
    rows = [[name, value, measured.get(name, "not measured")] for name, value in stored]
    print_table(rows, "FIGURE", "STORED", "MEASURED HERE")
    if reply["why_no_fidelity"]:
        output.print(f"Not compared with fp32: {reply['why_no_fidelity']}")


def _served(facts: Json) -> list[list[str]]:
    prompts = [repr(facts[key]) for key in ("query_prompt", "document_prompt")]
    shorter = ", ".join(map(str, facts["matryoshka_dimensions"]))
    serves = f"{facts['recipe']} on {facts['engine']}, other operations {facts['arithmetic']}"
    return [
        ["name", facts["name"]],
        ["kind", facts["kind"]],
        ["serves", serves],
        ["method", facts["method"]],
        ["canary", facts["canary"]],
        ["source", " @ ".join(filter(None, (facts["source"], facts["revision"])))],
        ["licence", facts["licence"] or "not known"],
        ["pooling", facts["pooling"]],
        ["max tokens", str(facts["max_tokens"])],
        ["dimensions", f"{facts['dimensions']}" + (f" (also {shorter})" if shorter else "")],
        ["prompts", f"query {prompts[0]}, document {prompts[1]}"],
        ["artefact", facts["artefact"]],
        ["installed", facts["installed_at"]],
    ]


def _candidates(facts: Json) -> Sequence[Sequence[str]]:
    return [
        [
            one["engine"],
            one["recipe"],
            "" if one["tokens_per_s_mixed"] is None else f"{one['tokens_per_s_mixed']:,.0f}",
            one["method"],
            one["verdict"],
        ]
        for one in facts["candidates"]
    ]
