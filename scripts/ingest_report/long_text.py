"""Ingest one very long text by a real server: memory by part, time, and whether it is found.

    python -m scripts.ingest_report.long_text --home HOME --mb 1000 --form text

The text repeats a few thousand passages in varying order, each of which is a chunk, so that what is
measured is everything but the engine: a text is embedded once. Near its end stands a sentence that
is there only once. With `--kill` the server is ended by SIGKILL half way, and goes on.
"""

import argparse
import random
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from scripts.ingest_report.served import client_of, states
from scripts.ingest_report.tree import Peaks, watched
from scripts.serving import fresh_home, serve

MB = 1_000_000
INDEX = "long"
NEEDLE = "The heron of Vellamo keeps its seventh silver key beneath the lighthouse stairs."
WORDS_EACH = 100
_WORDS = """water light stone river garden window paper morning winter music letter machine silver
forest market bridge harbor engine summer orange table corner village signal planet number system
record memory basket copper yellow doctor island valley mirror"""
_POLL_S = 1.0


@dataclass
class _Outcome:
    job: dict[str, Any]
    seconds: float
    peaks: list[Peaks]


def main() -> None:
    """Make the text, ingest it, ask for the sentence, print."""
    told = _arguments()
    with (
        tempfile.TemporaryDirectory(dir=told.work) as folder,
        fresh_home(told.home / "models") as home,
    ):
        path = Path(folder) / f"long.{'csv' if told.form == 'csv' else 'txt'}"
        place = _write(path, told.mb * MB, told.form, passages=told.passages)
        print(f"{path.stat().st_size} bytes, {told.form}", flush=True)
        outcome = _ingest(home, path, kills=told.kill)
        _print(outcome)
        with serve(home, arguments=["--allow", str(path.parent)]) as server:
            hit = (
                client_of(server)
                .post(f"/indexes/{INDEX}/query", json={"query": NEEDLE, "k": 1})
                .json()["hits"][0]
            )
        is_there = NEEDLE in hit["text"] and (
            told.form == "csv" or hit["start"] <= place < hit["end"]
        )
        print(f"found: {is_there}, at {hit['start']} to {hit['end']}, score {hit['score']}")
        sys.exit(not is_there)


def _write(path: Path, size: int, form: str, *, passages: int) -> int:
    """Write the text and return at which character the sentence begins."""
    chance, words = random.Random(6), _WORDS.split()
    texts = [
        " ".join([f"Passage {number}", *chance.choices(words, k=WORDS_EACH)]) + "."
        for number in range(passages)
    ]
    gap = {"text": "\n\n", "line": " ", "csv": "\n"}[form]
    written = place = 0
    with path.open("w", encoding="ascii", newline="") as file:
        if form == "csv":
            written += file.write("passage,number\n")
        while written < size:
            is_near_end = not place and written > size * 0.98
            passage = NEEDLE if is_near_end else chance.choice(texts)
            if is_near_end:
                place = written
            written += file.write(passage + ("" if form != "csv" else ",7") + gap)
    return place


def _ingest(home: Path, path: Path, *, kills: bool) -> _Outcome:
    started, job_id = time.perf_counter(), ""
    peaks: list[Peaks] = []
    while True:
        with ExitStack() as stack:
            server = stack.enter_context(serve(home, arguments=["--allow", str(path.parent)]))
            peaks.append(stack.enter_context(watched(server.pid)))
            http = client_of(server)
            if not job_id:
                http.put(f"/indexes/{INDEX}", json={}).raise_for_status()
                job = http.post(f"/indexes/{INDEX}/ingest", json={"path": str(path)})
                job_id = job.raise_for_status().json()["id"]
            for job_now in _told_states(http, job_id):
                done = job_now["progress"]["bytes_done"] / path.stat().st_size
                if kills and len(peaks) == 1 and done > 0.5:
                    server.process.send_signal(signal.SIGKILL)
                    server.process.wait()
                    print(f"killed at {100 * done:.0f} % after {_since(started)} s", flush=True)
                    break
            else:
                return _Outcome(job_now, time.perf_counter() - started, peaks)


def _told_states(http: httpx.Client, job_id: str) -> Iterator[dict[str, Any]]:
    """Yield the states of a job, and tell of one now and then."""
    told_s = 0.0
    for job in states(http, job_id, every_s=_POLL_S):
        yield job
        if time.perf_counter() - told_s > 30:
            told_s = time.perf_counter()
            print(job["status"], job["progress"], flush=True)


def _print(outcome: _Outcome) -> None:
    job, seconds = outcome.job, outcome.seconds
    chunks = job["progress"]["chunks"]
    print(f"{job['status']}: {chunks} chunks in {seconds:.0f} s, {chunks / seconds:.0f} a second")
    for number, peaks in enumerate(outcome.peaks, start=1):
        parts = {part: f"{size / 2**20:.0f} MiB" for part, size in peaks.parts.items()}
        print(f"life {number}: peak memory {parts}, together {peaks.together / 2**20:.0f} MiB")


def _since(started: float) -> str:
    return f"{time.perf_counter() - started:.0f}"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--home", type=Path, required=True, help="has the models, all-minilm too")
    parser.add_argument("--mb", type=int, default=1000, help="millions of bytes (1000)")
    parser.add_argument("--form", choices=("text", "line", "csv"), default="text")
    parser.add_argument("--passages", type=int, default=3000, help="distinct ones (3000)")
    parser.add_argument("--kill", action="store_true", help="once, half way")
    parser.add_argument("--work", type=Path, help="where the text is made; the system's choice")
    return parser.parse_args()


if __name__ == "__main__":
    main()
