"""Cores are counted as this process may use them."""

import os
from pathlib import Path

import pytest

from embedserve.engine.cores import available_cores

ALLOWED = len(os.sched_getaffinity(0))


@pytest.mark.parametrize(
    ("quota", "cores"),
    [
        ("max 100000", ALLOWED),
        ("100000 100000", 1),
        ("50000 100000", 1),  # half a core is still one worker
        ("99900000 100000", ALLOWED),  # more than there are
        ("nonsense", ALLOWED),
    ],
)
def test_the_quota_of_the_container_counts(tmp_path: Path, quota: str, cores: int) -> None:
    (tmp_path / "cpu.max").write_text(quota, encoding="ascii")
    assert available_cores(tmp_path / "cpu.max") == cores


def test_without_a_quota_affinity_counts(tmp_path: Path) -> None:
    assert available_cores(tmp_path / "absent") == ALLOWED
