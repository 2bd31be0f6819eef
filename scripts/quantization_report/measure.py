"""Measure ways and rivals: fidelity and retrieval one by one, then speed in turns.

All that are timed are loaded at once, each in its own process, and every round times each of them
once, so that a busy machine slows all alike. Every round starts them anew: one file in one engine
runs up to a quarter faster or slower from start to start, by where its memory came to lie.
"""

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Protocol

from embedserve.engine.cores import available_cores
from embedserve.models import fidelity
from embedserve.models.recipes import RECIPES
from embedserve.services.workshop import Workbench, Workshop
from embedserve.types import Vectors
from scripts.quantization_report import artefacts
from scripts.quantization_report.artefacts import Artefact, Model
from scripts.quantization_report.figures import LENGTHS, Row
from scripts.quantization_report.retrieval import Retrieval, cached, digest_texts
from scripts.quantization_report.rival import Files, Rival, Way

RIVAL_BATCHES = {1: "text by text", 32: "batches of 32, padded"}
PEOPLES_FILE = "int8-dynamic"


class Contestant(Protocol):
    """A process that has loaded an artefact."""

    def speed(self, of: str, seconds: float) -> float:
        """Return tokens per second at a length."""
        ...

    def resident_bytes(self) -> int:
        """Return what the process holds now."""
        ...


Start = Callable[[], AbstractContextManager[Contestant]]


@dataclass(frozen=True)
class Timing:
    """What a contestant gave."""

    speeds: dict[str, list[float]]
    """Tokens per second by length, a value each round."""
    resident_bytes: int
    """After the last round."""


@dataclass(frozen=True)
class Rounds:
    """How speed is measured."""

    count: int
    seconds: float
    """Of each measurement."""
    times: int = 1
    """As many times the texts of a pull's measurement at once."""


@dataclass(frozen=True)
class Judge:
    """What fidelity and retrieval are measured with."""

    truth: Vectors
    """Of the reference texts, by the fp32 graph."""
    retrieval: Retrieval | None
    cache: Path
    """Keeps vectors of the retrieval's texts."""

    def card(self, vectors: Vectors) -> fidelity.FidelityCard:
        """Compare vectors of the reference texts."""
        return fidelity.compare(self.truth, vectors)

    def ndcg(self, identity: Sequence[str], embed: Callable[[], Vectors]) -> float | None:
        """Embed the corpus, or take its vectors from an earlier run, and search it."""
        if self.retrieval is None:
            return None
        names = (*identity, digest_texts(self.retrieval.texts))
        return self.retrieval.ndcg(cached(self.cache, names, embed))


@dataclass(frozen=True)
class _Bench:
    """A way's process, as it is timed."""

    bench: Workbench
    times: int

    def speed(self, of: str, seconds: float) -> float:
        """See `Contestant.speed`."""
        return float(self.bench.ask("speed", of=of, seconds=seconds, times=self.times))

    def resident_bytes(self) -> int:
        """See `Contestant.resident_bytes`."""
        return int(self.bench.ask("machine")["resident_bytes"])


@dataclass(frozen=True)
class _Built:
    """A way, built and judged."""

    recipe: str
    number: int
    artefact: Artefact
    card: fidelity.FidelityCard | None
    ndcg10: float | None
    is_batch_invariant: bool

    def row(self, timing: Timing) -> Row:
        """Put it all together."""
        way = RECIPES[self.recipe].ways[self.number]
        return Row(
            engine=way.engine,
            recipe=self.recipe,
            method=way.method,
            size_bytes=self.artefact.size_bytes,
            resident_bytes=timing.resident_bytes,
            speeds=timing.speeds,
            is_batch_invariant=self.is_batch_invariant,
            card=self.card,
            ndcg10=self.ndcg10,
        )


@dataclass(frozen=True)
class _Rivals:
    """One way to batch, with the ways to use the cores; whichever is faster at a length counts."""

    batch: int
    members: list[Way]
    file: Artefact
    card: fidelity.FidelityCard
    ndcg10: float | None
    is_batch_invariant: bool

    def row(self, timings: Sequence[Timing]) -> Row:
        """Take the faster member at each length, and the memory of the smallest."""
        speeds = [one.speeds for one in timings]
        return Row(
            engine="onnxruntime",
            recipe="",
            method=f"optimum's dynamic int8, {RIVAL_BATCHES[self.batch]}",
            size_bytes=self.file.size_bytes,
            resident_bytes=min(one.resident_bytes for one in timings),
            speeds={length: max((one[length] for one in speeds), key=median) for length in LENGTHS},
            is_batch_invariant=self.is_batch_invariant,
            card=self.card,
            ndcg10=self.ndcg10,
        )


@dataclass(frozen=True)
class Measured:
    """What one model gave."""

    ways: list[Row]
    rivals: list[Row]


def judge(model: Model, retrieval: Retrieval | None, cache: Path, workshop: Workshop) -> Judge:
    """Embed the reference texts with the fp32 graph."""
    with ExitStack() as benches:
        bench = artefacts.load(model, artefacts.reference_artefact(model), workshop, benches)
        truth = artefacts.encode(bench, fidelity.reference_texts(), model.folder)
    return Judge(truth, retrieval, cache)


def measure_all(
    model: Model, recipes: Sequence[str], workshop: Workshop, rounds: Rounds, judged_by: Judge
) -> Measured:
    """Measure every way of the recipes, and the rivals."""
    built = [
        _build(model, recipe, number, workshop, judged_by)
        for recipe, number in artefacts.ways_here(recipes)
    ]
    file = _peoples_file(model, built, workshop)
    files = Files(file.graph, model.tokenizer, model.max_tokens, model.pad_token_id)
    groups = [_rivals(batch, files, file, judged_by) for batch in RIVAL_BATCHES]
    starts = {
        f"way {n}": _starts(model, one.artefact, workshop, rounds) for n, one in enumerate(built)
    }
    for group in groups:
        starts |= {f"rival {way}": _starts_rival(files, way, rounds) for way in group.members}
    timings = in_turns(starts, LENGTHS, rounds)
    return Measured(
        [one.row(timings[f"way {n}"]) for n, one in enumerate(built)],
        [group.row([timings[f"rival {way}"] for way in group.members]) for group in groups],
    )


def measure_base(
    model: Model, recipes: Sequence[str], workshop: Workshop, rounds: Rounds
) -> list[Row]:
    """Measure size, memory and speed at 128 tokens of every way of the recipes."""
    built = [
        _build(model, recipe, number, workshop, None)
        for recipe, number in artefacts.ways_here(recipes)
    ]
    starts = {str(n): _starts(model, one.artefact, workshop, rounds) for n, one in enumerate(built)}
    timings = in_turns(starts, ("128",), rounds)
    return [one.row(timings[str(n)]) for n, one in enumerate(built)]


def in_turns(
    starts: Mapping[str, Start], lengths: Sequence[str], rounds: Rounds
) -> dict[str, Timing]:
    """Time each at each length, once a round."""
    speeds: dict[str, dict[str, list[float]]] = {
        name: {length: [] for length in lengths} for name in starts
    }
    resident: dict[str, int] = {}
    for number in range(rounds.count):
        tell(f"speed, round {number + 1} of {rounds.count}")
        with ExitStack() as running:
            loaded = {name: running.enter_context(start()) for name, start in starts.items()}
            for length in lengths:
                for name, contestant in loaded.items():
                    speeds[name][length].append(contestant.speed(length, rounds.seconds))
            resident = {name: contestant.resident_bytes() for name, contestant in loaded.items()}
    return {name: Timing(speeds[name], resident[name]) for name in starts}


def tell(stage: str) -> None:
    """Say what is being done."""
    print(stage, file=sys.stderr, flush=True)


def _build(
    model: Model, recipe: str, number: int, workshop: Workshop, judged_by: Judge | None
) -> _Built:
    way = RECIPES[recipe].ways[number]
    tell(f"{recipe} on {way.engine}: {way.method}")
    artefact = artefacts.build(model, recipe, number, workshop)
    with ExitStack() as benches:
        bench = artefacts.load(model, artefact, workshop, benches)
        is_batch_invariant = bool(bench.ask("is_batch_invariant"))
        if judged_by is None:
            return _Built(recipe, number, artefact, None, None, is_batch_invariant)
        card = judged_by.card(artefacts.encode(bench, fidelity.reference_texts(), model.folder))
        ndcg10 = judged_by.ndcg(
            artefact.identity,
            lambda: artefacts.encode(bench, texts_of(judged_by), model.folder),
        )
    return _Built(recipe, number, artefact, card, ndcg10, is_batch_invariant)


def texts_of(judged_by: Judge) -> list[str]:
    """Return the retrieval's texts."""
    return judged_by.retrieval.texts if judged_by.retrieval else []


def _peoples_file(model: Model, built: Sequence[_Built], workshop: Workshop) -> Artefact:
    for one in built:
        if one.recipe == PEOPLES_FILE:
            return one.artefact
    return artefacts.build(model, PEOPLES_FILE, 0, workshop)


def _rivals(batch: int, files: Files, file: Artefact, judged_by: Judge) -> _Rivals:
    tell(f"optimum's int8, {RIVAL_BATCHES[batch]}")
    cores = available_cores()
    members = [Way(batch, workers=1, threads=cores), Way(batch, workers=cores, threads=1)]
    texts = fidelity.reference_texts()
    with closing(Rival(files, members[0])) as rival:
        together, mixed = rival.encode(texts), rival.encode(texts[1::2])
    with closing(Rival(files, members[1])) as rival:
        ndcg10 = judged_by.ndcg(
            (*file.identity, f"padded by {batch}"), lambda: rival.encode(texts_of(judged_by))
        )
    return _Rivals(
        batch,
        members,
        file,
        judged_by.card(together),
        ndcg10,
        # Half of the texts have other neighbours now, where they have any.
        together[1::2].tobytes() == mixed.tobytes(),
    )


def _starts(model: Model, artefact: Artefact, workshop: Workshop, rounds: Rounds) -> Start:
    @contextmanager
    def start() -> Iterator[Contestant]:
        with ExitStack() as benches:
            yield _Bench(artefacts.load(model, artefact, workshop, benches), rounds.times)

    return start


def _starts_rival(files: Files, way: Way, rounds: Rounds) -> Start:
    return lambda: closing(Rival(files, way, rounds.times))
