"""The way from the hub to the cache: cuts, kills, refusals, full disks, wrong content, settings."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from embedserve.errors import ModelError
from embedserve.models.hub import FRUITLESS_ATTEMPTS, LIST_ATTEMPTS, HubOptions, Progress
from embedserve.models.names import parse_name
from embedserve.models.pull import Checkpoint, ignore_progress, locate
from tests.hub_double import COMMIT, HubDouble

MIB = 1024 * 1024
WEIGHTS = "model.safetensors"
# The hub's library writes in pieces of 10 MiB: what is to be resumed must be longer than that.
PIECE = 10 * MIB
CONTENT = bytes(range(256)) * (12 * MIB // 256)
FILES = {"config.json": b"{}", "tokenizer.json": b"[]", WEIGHTS: CONTENT}

PULL = """
from embedserve.errors import ModelError
from embedserve.models.names import parse_name
from embedserve.models.pull import locate
try:
    print('found', locate(parse_name('hf.co/org/tiny'), None).revision)
except ModelError as error:
    print(error)
"""


@pytest.fixture
def hub() -> Iterator[HubDouble]:
    with HubDouble({"org/tiny": dict(FILES)}) as double:
        yield double


def fetch(
    hub: HubDouble,
    cache: Path,
    name: str = "hf.co/org/tiny",
    *,
    token: str | None = None,
    progress: Progress = ignore_progress,
) -> Checkpoint:
    options = HubOptions(hub.endpoint, cache, token, pause_s=0.01)
    return locate(parse_name(name), None, options, progress=progress)


def start(hub: HubDouble, home: Path, **more: str) -> subprocess.Popen[str]:
    """Pull in a process of its own; the hub's library reads its settings when it is imported."""
    told = {"HF_ENDPOINT": hub.endpoint, "HF_HOME": str(home), **more}
    return subprocess.Popen(
        [sys.executable, "-c", PULL],
        env={**os.environ, **told},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def ranges(hub: HubDouble) -> list[str]:
    return [request.split()[2] for request in hub.requests if " bytes=" in request]


def blobs(cache: Path) -> Path:
    return cache / "models--org--tiny" / "blobs"


# Attempts that bring nothing count from the last one that brought something.
ENDURED = [0] * (FRUITLESS_ATTEMPTS - 1)


@pytest.mark.parametrize("cuts", [[11 * MIB], [*ENDURED, 11 * MIB, *ENDURED]])
def test_cut_download_goes_on_where_it_ended(
    hub: HubDouble, tmp_path: Path, cuts: list[int]
) -> None:
    hub.faults.cuts[WEIGHTS] = list(cuts)
    found = fetch(hub, tmp_path)
    assert {*ranges(hub)} == {f"bytes={PIECE}-"}
    assert hub.bodies(WEIGHTS) == len(cuts) + 1
    assert (found.folder / WEIGHTS).read_bytes() == CONTENT


def test_killed_download_goes_on_where_it_ended(hub: HubDouble, tmp_path: Path) -> None:
    hub.faults.holds_after = 11 * MIB
    process = start(hub, tmp_path)
    assert hub.faults.is_holding.wait(30)
    [incomplete] = wait_for(blobs(tmp_path / "hub"), "*.incomplete", PIECE)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    hub.faults.released.set()
    said, _ = start(hub, tmp_path, HF_HUB_OFFLINE="1").communicate(timeout=60)
    assert "HF_HUB_OFFLINE is set" in said
    found = fetch(hub, tmp_path / "hub")
    assert ranges(hub) == [f"bytes={PIECE}-"]
    assert (found.folder / WEIGHTS).read_bytes() == CONTENT
    assert not incomplete.exists()


def wait_for(folder: Path, pattern: str, size: int) -> list[Path]:
    for _ in range(300):
        found = [path for path in folder.glob(pattern) if path.stat().st_size >= size]
        if found:
            return found
        time.sleep(0.1)
    raise AssertionError(f"no {pattern} of {size} bytes in {folder}")


def test_beginning_that_is_too_long_is_fetched_anew(hub: HubDouble, tmp_path: Path) -> None:
    fetch(hub, tmp_path)
    [blob] = [path for path in blobs(tmp_path).iterdir() if path.stat().st_size == len(CONTENT)]
    blob.rename(f"{blob}.incomplete")
    with Path(f"{blob}.incomplete").open("ab") as file:
        file.write(b"more")
    (tmp_path / "models--org--tiny" / "snapshots" / COMMIT / WEIGHTS).unlink()
    assert (fetch(hub, tmp_path).folder / WEIGHTS).read_bytes() == CONTENT
    assert ranges(hub) == []


def test_attempts_end_when_nothing_arrives(hub: HubDouble, tmp_path: Path) -> None:
    hub.faults.cuts[WEIGHTS] = [0] * 99
    with pytest.raises(ModelError, match=r"`org/tiny`.*cannot be fetched.*what arrived is kept"):
        fetch(hub, tmp_path)
    assert hub.bodies(WEIGHTS) == FRUITLESS_ATTEMPTS


def test_passing_faults_of_the_server_are_outlived(hub: HubDouble, tmp_path: Path) -> None:
    hub.faults.statuses = {"/revision/main": [500, 429], "config.json": [503]}
    assert fetch(hub, tmp_path).revision == COMMIT


def test_lasting_fault_of_the_server_is_named(hub: HubDouble, tmp_path: Path) -> None:
    hub.faults.statuses = {"/revision/main": [500] * 99}
    with pytest.raises(ModelError, match=r"answered 500 for `org/tiny` at `main`.*later"):
        fetch(hub, tmp_path)
    assert len(hub.requests) == LIST_ATTEMPTS


@pytest.mark.parametrize("name", [WEIGHTS, "config.json"])
def test_other_content_than_listed_is_deleted_and_refused(
    hub: HubDouble, tmp_path: Path, name: str
) -> None:
    hub.faults.altered.add(name)
    with pytest.raises(ModelError, match=rf"`{name}` is not what the hub lists.*deleted"):
        fetch(hub, tmp_path)
    assert not (tmp_path / "models--org--tiny" / "snapshots" / COMMIT / name).exists()
    hub.faults.altered.clear()
    assert (fetch(hub, tmp_path).folder / name).read_bytes() == FILES[name]
    assert hub.bodies(name) == 2


def test_content_damaged_in_the_cache_is_found(hub: HubDouble, tmp_path: Path) -> None:
    found = fetch(hub, tmp_path)
    (found.folder / "tokenizer.json").write_bytes(b"[ ]")
    with pytest.raises(ModelError, match=r"`tokenizer.json` is not what the hub lists"):
        fetch(hub, tmp_path)


def test_hub_that_lists_no_digests_is_verified_by_etag(hub: HubDouble, tmp_path: Path) -> None:
    hub.has_digests = False
    assert (fetch(hub, tmp_path).folder / WEIGHTS).read_bytes() == CONTENT
    hub.faults.altered.add(WEIGHTS)
    with pytest.raises(ModelError, match=rf"`{WEIGHTS}` is not what the hub lists"):
        fetch(hub, tmp_path / "another")


def test_two_processes_share_one_download(hub: HubDouble, tmp_path: Path) -> None:
    hub.faults.holds_after = MIB
    processes = [start(hub, tmp_path), start(hub, tmp_path)]
    weights = f"HEAD /org/tiny/resolve/{COMMIT}/{WEIGHTS}"
    for _ in range(300):
        if hub.requests.count(weights) == 2:
            break  # both know that they want it, and neither has it
        time.sleep(0.1)
    hub.faults.released.set()
    said = [process.communicate(timeout=60) for process in processes]
    assert [out for out, _ in said] == [f"found {COMMIT}\n"] * 2, said
    assert {name: hub.bodies(name) for name in FILES} == dict.fromkeys(FILES, 1)


def test_progress_tells_every_file_and_its_bytes(hub: HubDouble, tmp_path: Path) -> None:
    hub.faults.holds_after = 11 * MIB
    told: list[tuple[str, int | None, int | None]] = []

    def progress(stage: str, done: int | None, total: int | None) -> None:
        told.append((stage, done, total))
        if done == PIECE:
            hub.faults.released.set()

    fetch(hub, tmp_path, progress=progress)
    stages = list(dict.fromkeys(stage for stage, _, _ in told))
    assert stages == [f"pulling {name}" for name in FILES]
    of_weights = [step[1:] for step in told if step[0] == f"pulling {WEIGHTS}"]
    assert of_weights == [(0, len(CONTENT)), (PIECE, len(CONTENT)), (len(CONTENT), len(CONTENT))]


def test_too_little_space_is_told_before_anything_is_fetched(
    hub: HubDouble, tmp_path: Path
) -> None:
    hub.faults.listed_sizes[WEIGHTS] = 10**15
    with pytest.raises(ModelError, match=r"needs 1,000,000,000\.\d MB more .*Make room.*HF_HOME"):
        fetch(hub, tmp_path)
    assert hub.bodies("config.json") == hub.bodies(WEIGHTS) == 0


def test_disk_that_fills_up_is_named(hub: HubDouble, tmp_path: Path) -> None:
    digest = fetch(hub, tmp_path / "another").weights_sha256
    blobs(tmp_path).mkdir(parents=True)
    # A device on which every write fails as on a full disk.
    (blobs(tmp_path) / f"{digest}.incomplete").symlink_to("/dev/full")
    with pytest.raises(ModelError, match=r"The disk of `.*` is full.*Make room.*HF_HOME"):
        fetch(hub, tmp_path)


def test_cache_that_cannot_be_written_is_named(hub: HubDouble, tmp_path: Path) -> None:
    (tmp_path / "models--org--tiny").write_text("in the way")
    with pytest.raises(ModelError, match=r"cannot be kept in `.*another folder"):
        fetch(hub, tmp_path)


def test_unknown_repository_is_named(hub: HubDouble, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"The hub has no `org/absent`.*HF_TOKEN"):
        fetch(hub, tmp_path, "hf.co/org/absent")


def test_unknown_revision_is_named(hub: HubDouble, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"`org/tiny` has no `v9`\. Name a branch"):
        fetch(hub, tmp_path, "hf.co/org/tiny:v9")


def test_gated_repository_opens_with_a_token(hub: HubDouble, tmp_path: Path) -> None:
    hub.gated.add("org/tiny")
    for token in (None, "hf_of_somebody_else"):  # 401, then 403
        with pytest.raises(ModelError, match=r"wants its terms accepted.*set HF_TOKEN"):
            fetch(hub, tmp_path, token=token)
    assert fetch(hub, tmp_path, token=hub.token).revision == COMMIT


def test_token_that_is_not_known_is_told(hub: HubDouble, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"does not let this token read `org/tiny` \(401\)"):
        fetch(hub, tmp_path, token="hf_expired")


def test_token_is_shown_to_the_hub_only(hub: HubDouble, tmp_path: Path) -> None:
    fetch(hub, tmp_path, token=hub.token)
    assert hub.bodies(WEIGHTS) == 1
    assert hub.tokens_at_cdn == []


def test_unreachable_hub_says_what_to_do(tmp_path: Path) -> None:
    with HubDouble({}) as gone:
        pass
    with pytest.raises(ModelError, match=r"--from FOLDER.*pip install 'embedserve\[bundled\]'"):
        fetch(gone, tmp_path)


def test_settings_of_the_hub_count(hub: HubDouble, tmp_path: Path) -> None:
    hub.gated.add("org/tiny")
    said, _ = start(hub, tmp_path, HF_TOKEN=hub.token).communicate(timeout=60)
    assert said == f"found {COMMIT}\n"
    assert (tmp_path / "hub" / "models--org--tiny").is_dir()


def test_offline_the_cache_is_used_and_nobody_asked(hub: HubDouble, tmp_path: Path) -> None:
    said, _ = start(hub, tmp_path, HF_HUB_OFFLINE="1").communicate(timeout=60)
    assert "HF_HUB_OFFLINE is set" in said
    assert "has no `org/tiny` at `main`" in said
    assert hub.requests == []
    found = fetch(hub, tmp_path / "hub")
    hub.requests.clear()
    said, _ = start(hub, tmp_path, HF_HUB_OFFLINE="1").communicate(timeout=60)
    assert said == f"found {COMMIT}\n"
    (found.folder / WEIGHTS).write_bytes(CONTENT[:-1])
    said, _ = start(hub, tmp_path, HF_HUB_OFFLINE="1").communicate(timeout=60)
    assert f"`{WEIGHTS}` is not what the hub lists" in said  # and deleted
    said, _ = start(hub, tmp_path, HF_HUB_OFFLINE="1").communicate(timeout=60)
    assert "unset it to fetch what" in said
    assert hub.requests == []


def test_files_come_by_the_way_that_can_be_resumed(hub: HubDouble, tmp_path: Path) -> None:
    hub.has_xet = True
    said, complaint = start(hub, tmp_path).communicate(timeout=60)
    assert said == f"found {COMMIT}\n", complaint
    assert hub.bodies(WEIGHTS) == 1


def test_proxy_of_the_environment_is_asked(hub: HubDouble, tmp_path: Path) -> None:
    # Plain HTTP shows it; for HTTPS the same library reads HTTPS_PROXY in the same place.
    told = {"HF_ENDPOINT": "http://hub.invalid", "NO_PROXY": "", "no_proxy": ""}
    process = start(hub, tmp_path, HTTP_PROXY=hub.endpoint, http_proxy=hub.endpoint, **told)
    said, complaint = process.communicate(timeout=60)
    assert said == f"found {COMMIT}\n", complaint
    assert all(" http://" in request for request in hub.requests)
