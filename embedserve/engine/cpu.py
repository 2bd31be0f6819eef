"""What this machine's processor can do, as far as the vectors depend on it."""

import platform
from pathlib import Path

CPU_INFO = Path("/proc/cpuinfo")

# Linux's names. Each either changes which integers a product is computed in, or in which order
# the sums of a row are added up.
_FEATURES = frozenset(
    {"avx2", "avx512f", "avx_vnni", "avx512_vnni", "avx512_bf16", "amx_int8", "amx_bf16"}
    | {"asimddp", "i8mm", "bf16"}
)
# A processor that has the first takes it where another would take the others.
_SUPERSEDES = {
    "avx512f": {"avx2"},
    "avx512_vnni": {"avx_vnni"},
    "avx512_bf16": {"avx512f"},
    "i8mm": {"asimddp"},
}
_INT8_DOT_PRODUCTS = {"avx_vnni", "avx512_vnni", "amx_int8", "asimddp", "i8mm"}
_MACHINES = {"amd64": "x86_64", "arm64": "aarch64"}


def cpu_features(path: Path = CPU_INFO) -> frozenset[str]:
    """Return what the processor has of the features that matter; empty where Linux is not."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return frozenset()
    for line in text.splitlines():
        key, _, value = line.partition(":")
        if key.strip() in ("flags", "Features"):  # x86, ARM
            return _FEATURES & set(value.split())
    return frozenset()


def cpu_class(path: Path = CPU_INFO) -> str:
    """Name what decides the arithmetic, such as `x86_64 avx512_bf16 avx512_vnni`.

    Processors of one class give the same vectors as far as is known; between classes the last
    bits may differ, and with int8 more than those.
    """
    features = cpu_features(path)
    idle = {old for new in features for old in _SUPERSEDES.get(new, set())}
    machine = platform.machine().lower()
    return " ".join([_MACHINES.get(machine, machine), *sorted(features - idle)])


def has_vnni(path: Path = CPU_INFO) -> bool:
    """Tell whether int8 products are added up in 32 bits; elsewhere 16 bits may saturate."""
    return bool(cpu_features(path) & _INT8_DOT_PRODUCTS)
