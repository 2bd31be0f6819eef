"""A folder with 100,000 tiny files: `scripts/test tests/faults/test_many_files.py --all-faults`."""

import time
from pathlib import Path
from typing import Any

import pytest

from tests.live import LiveServer

FILES = 100_000
FOLDERS = 200
POLL_S = 1.0
PEAK_BYTES = 600 * 1024 * 1024


@pytest.mark.timeout(7200)
def test_a_hundred_thousand_tiny_files(
    home: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    if not request.config.getoption("--all-faults"):
        pytest.skip("SLOW: 100,000 files are ingested with --all-faults only")
    documents = tmp_path / "documents"
    for number in range(FILES):
        folder = documents / f"{number % FOLDERS:03}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{number:06}.txt").write_text(f"Note {number}: order {number * 7919 % 99991}.\n")
    tell = request.config.get_terminal_writer().line
    with LiveServer(home, allow=[documents]) as server:
        first = run(server, documents)
        assert first["status"] == "succeeded", first
        assert first["counts"] == {"added": FILES}
        tell(f"\nfirst run: {first['seconds']:.0f} s, peak {peak_bytes(server.pid) / 1e6:.0f} MB")
        second = run(server, documents)
        assert second["counts"] == {"unchanged": FILES}
        tell(f"second run: {second['seconds']:.1f} s")
        (documents / "000" / "000000.txt").unlink()
        third = run(server, documents)
        assert third["counts"] == {"unchanged": FILES - 1, "deleted": 1}
        counts = server.counts("many")
        assert counts["documents"] == counts["chunks"] == FILES - 1
        hits = server.query("many", "Note 77777", k=3)
        assert len(hits) == 3
        tell(f"at the end: peak {peak_bytes(server.pid) / 1e6:.0f} MB, {counts}")
        assert peak_bytes(server.pid) < PEAK_BYTES


def run(server: LiveServer, documents: Path) -> dict[str, Any]:
    """Ingest to the end, however long it takes; add how many seconds that were."""
    started = time.monotonic()
    server.http.put("/indexes/many", json={}).raise_for_status()
    reply = server.http.post("/indexes/many/ingest", json={"path": str(documents)})
    while True:
        job: dict[str, Any] = server.http.get(f"/jobs/{reply.json()['id']}?limit=0").json()
        if job["status"] not in ("queued", "running"):
            return {**job, "seconds": time.monotonic() - started}
        time.sleep(POLL_S)


def peak_bytes(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("no VmHWM in /proc")
