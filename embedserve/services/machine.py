"""The machine that models are made for, and what of them it can run. Runs nothing."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from embedserve.engine.backend import EngineFacts, describe
from embedserve.engine.cpu import CPU_INFO, cpu_features, has_vnni
from embedserve.models.recipes import RECIPES

CPU_ENGINES = frozenset({"openvino"})
"""Engines that run on CPUs only."""

_BF16_FEATURES = {"avx512_bf16", "amx_bf16", "bf16"}


@dataclass(frozen=True)
class Machine:
    """Where models are to run."""

    device: str
    threads: int
    cpu_info: Path = CPU_INFO
    """What tells the features of the CPU."""
    engine_facts: Callable[[str], EngineFacts] = describe
    round_seconds: float = 0.3
    """How long one of the rounds takes by which speed is measured."""

    @property
    def has_bf16(self) -> bool:
        """Tell whether the CPU computes in bf16."""
        return bool(_BF16_FEATURES & cpu_features(self.cpu_info))

    @property
    def has_vnni(self) -> bool:
        """Tell whether the CPU adds products of 8 bits in 32."""
        return has_vnni(self.cpu_info)

    def why_not(self, recipe: str, engine: str) -> str:
        """Say why a recipe cannot run on an engine here; empty when it can."""
        if RECIPES[recipe].device not in (self.device, "any"):
            return f"recipe `{recipe}` is not for device `{self.device}`"
        if self.device != "cpu" and engine in CPU_ENGINES:
            return "this engine runs on CPUs only"
        return self.engine_facts(engine).why_not
