"""The command: serve, warm up, attack, and judge."""

import argparse
import time
from collections import Counter
from pathlib import Path

from embedserve.services.memory import resident_bytes
from scripts.fuzz_report.broken import requests
from scripts.fuzz_report.judge import Report, judge, judge_memory, table
from scripts.fuzz_report.properties import run_schemathesis
from scripts.fuzz_report.routes import routes_of
from scripts.fuzz_report.warm import call, let_go, probe, wait_for_jobs, warm_up
from scripts.fuzz_report.wire import send_all
from scripts.serving import Server, copied_home, serve

# Nothing is remembered between requests, so that what grows is no cache.
SETTINGS = {"EMBEDSERVE_CACHE_BYTES": "0"}
WARM_REQUESTS = 500
# The server gives back what was freed a second after the last of it; a busy machine takes longer.
SETTLED_S = 5.0
SETTLED_BYTES = 1 << 20


def main() -> None:
    """Parse the arguments and run; the exit status is 1 when something must not be."""
    told = _arguments()
    with copied_home(told.models) as home, serve(home, SETTINGS) as server:
        if told.schemathesis:
            found = run_schemathesis(server.port, told.cache.absolute(), told.seed, told.examples)
        else:
            found = _attack(server, told)
        found += _state_of(server)
    for failure in found:
        print(f"\nFAILED {failure}")
    raise SystemExit(1 if found else 0)


def _attack(server: Server, told: argparse.Namespace) -> list[str]:
    routes = routes_of(call(server.port, "/openapi.json"))
    report = Report(told.seed, len(routes))
    before = probe(server.port)
    # What the first broken requests bring into memory (error paths, buffers) is no growth.
    send_all(server.port, requests(routes, WARM_REQUESTS, told.seed + 1))
    report.resident_before_bytes = _weighed(server)
    started = time.monotonic()
    answers = send_all(server.port, requests(routes, told.requests, told.seed))
    report.seconds = time.monotonic() - started
    report.resident_after_bytes = _weighed(server)
    judge(answers, report)
    judge_memory(report)
    if probe(server.port) != before:
        report.failures.append("the same text has another vector now")
    print(table(report))
    if told.json:
        told.json.write_text(report.as_json(), encoding="utf-8")
    return report.failures


def _weighed(server: Server) -> int:
    """Return the memory of the server without jobs, with one model that has seen every length.

    Some broken requests unload it, and what is loaded again has seen none: 40 MB less, by chance.
    Nothing that requests left is taken away but models of theirs that are still loaded.
    """
    wait_for_jobs(server.port)
    let_go(server.port)
    warm_up(server.port)
    return _settled_bytes(server.pid)


def _settled_bytes(pid: int) -> int:
    """Return what a process holds once that falls no more.

    Weighed before all that was freed is given back, the beginning would hide as much growth.
    """
    lowest, since_s = resident_bytes(pid), time.monotonic()
    while time.monotonic() - since_s < SETTLED_S:
        time.sleep(0.2)
        held = resident_bytes(pid)
        if held < lowest - SETTLED_BYTES:
            since_s = time.monotonic()
        lowest = min(lowest, held)
    return lowest


def _state_of(server: Server) -> list[str]:
    """Return what is wrong with the server at the end."""
    if server.process.poll() is not None:
        return [
            f"the server ended with status {server.process.returncode}:\n{server.log()[-3000:]}"
        ]
    found = []
    if call(server.port, "/health").get("status") != "ok":
        found.append("/health does not say that it is well")
    log = server.log()
    if server.errors or "Traceback" in log:
        lines = [line.partition(" ERROR ")[2] for line in log.splitlines() if " ERROR " in line]
        kinds = "".join(f"\n  {count} x {line}" for line, count in Counter(lines).most_common(20))
        place = max(log.find("Traceback"), 0)
        found.append(f"the log has errors:{kinds}\nthe first:\n{log[place : place + 5000]}")
    return found


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/fuzz", description=__doc__)
    parser.add_argument("--models", type=Path, required=True, help="models folder of a home")
    parser.add_argument("--cache", type=Path, required=True, help="where environments are kept")
    parser.add_argument("--requests", type=int, default=10_000, help="how many are sent (10,000)")
    parser.add_argument("--seed", type=int, default=1, help="other requests for another seed (1)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there too")
    parser.add_argument(
        "--schemathesis",
        action="store_true",
        help="requests made from the OpenAPI document instead",
    )
    parser.add_argument("--examples", type=int, default=50, help="of those, for each route (50)")
    return parser.parse_args()


if __name__ == "__main__":
    main()
