"""Embed the sets, fit one half of their questions, report on the other: see scripts/relevance."""

import argparse
from pathlib import Path

from embedserve.engine.encoder import Encoder
from embedserve.engine.scheduler import Scheduler
from embedserve.models.installed import resolve
from embedserve.services.models import encoder_spec
from embedserve.types import BatchTokens
from scripts.relevance_report.evidence import gather
from scripts.relevance_report.fit import COLUMNS, Fitted, fit, log_loss, reliability
from scripts.relevance_report.sets import SETS, JudgedSet, build

WAYS = (("cosine", "overlap"), ("cosine",), ("cosine", "bm25"), COLUMNS)
"""What is fitted: first what calibration.toml has, then what it is compared with."""


def main() -> None:
    """Print what belongs into calibration.toml, and the tables of reliability."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--home", type=Path, required=True, help="has the model installed")
    parser.add_argument("--model", default="all-minilm")
    data = Path(__file__).parents[2].parent / "shared" / "data"
    parser.add_argument("--data", type=Path, default=data, help="folder that has the sets in it")
    told = parser.parse_args()
    sets = _sets(told.home, told.model, told.data)
    tuned, reported = gather(sets, 0), gather(sets, 1)
    for columns in WAYS:
        fitted = fit(tuned, columns)
        print(_table(told.model, fitted))
        losses = log_loss(fitted, tuned), log_loss(fitted, reported)
        print(f"# log loss {losses[0]:.4f}, other half {losses[1]:.4f}")
        for one in reliability(fitted, reported):
            told_of = f"{one.hits} hits, {one.expected:.2f} expected, {one.answered:.2f} answered"
            print(f"# {one.low:.1f}: {told_of}")


def _sets(home: Path, model: str, data: Path) -> list[JudgedSet]:
    scheduler = Scheduler(workers=2, batch_tokens=BatchTokens(), queue_tokens=10**7)
    encoder = Encoder(encoder_spec(resolve(home / "models", model)), scheduler, device="cpu")
    try:
        return [build(name, *read(data / folder), encoder) for name, (folder, read) in SETS.items()]
    finally:
        encoder.close()
        scheduler.close()


def _table(model: str, fitted: Fitted) -> str:
    rows = {"intercept": fitted.intercept, **fitted.weights}
    lines = [f"{name} = {value:.3f}" for name, value in rows.items()]
    return "\n".join([f"[models.{model}]", *lines])


main()
