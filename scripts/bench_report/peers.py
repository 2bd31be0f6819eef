"""What another harness measured of other servers and libraries, as tables of the page.

Such a harness loads each server, ours among them, with the same texts in one run and writes JSON:
of servers `{"part": "http", "targets": {name: {"rounds": [...], "check": {...}}}, ...}`, of
libraries `{"part": "inproc", "engines": {name: {"samples": {...}, "fidelity": {...}}}, ...}`.
"""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from scripts.bench_report.figures import PeerTable

_HTTP_HEAD = ["server", "one query, p50 / p99", "32 clients, queries/s", "bulk, texts/s"]
_HTTP_HEAD += ["query beside bulk, p50 / p99", "cosine to fp32"]


def read_peers(path: Path) -> PeerTable:
    """Read one file of the harness."""
    try:
        run = json.loads(path.read_text(encoding="utf-8"))
        return {"http": _servers, "inproc": _libraries}[run["part"]](run)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SystemExit(f"`{path}` is no file of the harness: {error!r}") from error


def _servers(run: Mapping[str, Any]) -> PeerTable:
    targets = {name: target for name, target in run["targets"].items() if target["rounds"]}
    rates = {part: {name: _rate(target, part) for name, target in targets.items()} for part in "bc"}
    rows = [
        [
            _label(name, run),
            _latency(target, "a"),
            *(_against(name, rates[part], run["subjects"]) for part in "bc"),
            _latency(target, "d"),
            f"{target['check']['cos_mean']:.5f}",
        ]
        for name, target in sorted(targets.items(), key=lambda item: -rates["c"][item[0]])
    ]
    return PeerTable("Servers, over HTTP", _words(run), _HTTP_HEAD, rows)


def _libraries(run: Mapping[str, Any]) -> PeerTable:
    sets, engines = run["mean_tokens"], run["engines"]
    rates = {
        name: {
            engine: median(sample["texts_s"] for sample in found["samples"][name])
            for engine, found in engines.items()
        }
        for name in sets
    }
    # Fastest first, all kinds of texts alike.
    order = sorted(engines, key=lambda engine: -math.prod(rates[name][engine] for name in sets))
    rows = [
        [
            _label(engine, run),
            *(_against(engine, rates[name], run["subjects"]) for name in sets),
            f"{min(fidelity['mean'] for fidelity in engines[engine]['fidelity'].values()):.5f}",
            f"{engines[engine]['peak_rss_mb']}",
        ]
        for engine in order
    ]
    head = ["library", *(f"{name} ({tokens:.0f} tokens)" for name, tokens in sets.items())]
    title = f"Libraries, in process, {run['threads']} threads: texts/s"
    return PeerTable(title, _words(run), [*head, "lowest mean cosine", "memory, MB"], rows)


def _rate(target: Mapping[str, Any], part: str) -> float:
    return float(median(one[part]["texts_s"] for one in target["rounds"]))


def _latency(target: Mapping[str, Any], part: str) -> str:
    took = sorted(value for one in target["rounds"] for value in one[part]["took"])
    half, most = (took[max(0, math.ceil(share * len(took)) - 1)] for share in (0.5, 0.99))
    return f"{half:.1f} / {most:.1f} ms"


def _against(name: str, values: Mapping[str, float], subjects: Sequence[str]) -> str:
    others = [value for other, value in values.items() if other not in subjects]
    best = f" ({values[name] / max(others):.2f})" if others else ""
    return f"{values[name]:.0f}{best}"


def _label(name: str, run: Mapping[str, Any]) -> str:
    return f"**{name}**" if name in run["subjects"] else name


def _words(run: Mapping[str, Any]) -> str:
    failed = "".join(f" Not measured: {name} ({why})." for name, why in run["failed"].items())
    start, end = run["start"], run["end"]
    return (
        f"{start['cpu']}, {start['cores']} cores, {start['time']}; load average "
        f"{start['load'][0]} at the start and {end['load'][0]} at the end, the harness itself "
        f"included; median of {run['rounds']} rounds in turns. In brackets the ratio to the best "
        f"of the others.{failed}"
    )
