"""What is read from the processor's description."""

import platform
from pathlib import Path

import pytest

from embedserve.engine.cpu import cpu_class, cpu_features, has_vnni

MACHINE = {"AMD64": "x86_64", "arm64": "aarch64"}.get(platform.machine(), platform.machine())


def described(folder: Path, line: str) -> Path:
    path = folder / "cpuinfo"
    path.write_text(f"processor\t: 0\nbugs\t\t: avx2\n{line}\n\nprocessor\t: 1\n{line}\n", "utf-8")
    return path


@pytest.mark.parametrize(
    ("line", "features", "relevant", "is_exact"),
    [
        ("flags\t\t: fpu sse2", "", "", False),
        ("flags\t\t: fpu avx2 avx512_vp2intersect", "avx2", "avx2", False),
        ("flags\t\t: avx2 avx_vnni", "avx2 avx_vnni", "avx2 avx_vnni", True),
        ("flags\t\t: avx2 avx512f", "avx2 avx512f", "avx512f", False),
        (
            "flags\t\t: avx_vnni avx2 avx512_vnni avx512f avx512_bf16",
            "avx2 avx512f avx512_bf16 avx512_vnni avx_vnni",
            "avx512_bf16 avx512_vnni",
            True,
        ),
        ("Features\t: fp asimd asimddp i8mm bf16", "asimddp bf16 i8mm", "bf16 i8mm", True),
        ("Features\t: fp asimd", "", "", False),
    ],
)
def test_features_that_decide_the_arithmetic_are_read(
    tmp_path: Path, line: str, features: str, relevant: str, is_exact: bool
) -> None:
    path = described(tmp_path, line)
    assert cpu_features(path) == set(features.split())
    assert cpu_class(path) == f"{MACHINE} {relevant}".strip()
    assert has_vnni(path) is is_exact


def test_elsewhere_only_the_machine_is_known(tmp_path: Path) -> None:
    absent = tmp_path / "absent"
    assert cpu_features(absent) == set()
    assert cpu_class(absent) == MACHINE
    assert not has_vnni(absent)
