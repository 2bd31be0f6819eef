"""The machine that models are made for, and what of them it can run. Runs no model."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from embedserve.engine.backend import EngineFacts, describe
from embedserve.engine.cpu import CPU_INFO, cpu_features, has_vnni
from embedserve.engine.providers import AUTO, AUTO_ORDER
from embedserve.models.recipes import RECIPES

logger = logging.getLogger(__name__)

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
        return unfit(self.device, recipe, engine) or self.engine_facts(engine).why_not


def unfit(device: str, recipe: str, engine: str) -> str:
    """Say why a device is none for a recipe on an engine; empty when it is one."""
    known = RECIPES.get(recipe)  # a manifest may come from a release that had others
    if known and known.device not in (device, "any"):
        return f"recipe `{recipe}` is not for device `{device}`"
    if device != "cpu" and engine in CPU_ENGINES:
        return "this engine runs on CPUs only"
    return ""


def resolve_device(asked: str, why_not: Callable[[str], str] | None = None) -> str:
    """Return the device that `auto` means here; any other name is what the user wants, as it is.

    `why_not` tries a device and says why it cannot be used, empty when it can.
    """
    if asked != AUTO:
        return asked
    *preferred, last = AUTO_ORDER
    for device in preferred:
        reason = (why_not or _why_no_device)(device)
        if not reason:
            logger.info("device auto: models run on `%s`", device)
            return device
        logger.info("device auto: not `%s`. %s", device, reason)
    logger.info("device auto: models run on `%s`", last)
    return last


def _why_no_device(device: str) -> str:
    # Not at the top: the package reads its environment when it is imported, and who runs OpenVINO
    # on a device that was named should not load it at all.
    from embedserve.engine.onnxruntime_backend import why_no_device

    return why_no_device(device)
