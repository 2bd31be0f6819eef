"""Measure ways and rivals: fidelity and retrieval one by one, then speed in turns.

All that are timed are loaded at once, each in its own process, and every round times each of them
once, so that a busy machine slows all alike.
"""

import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median

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

Speed = Callable[[str, float], float]
"""Length and seconds -> tokens per second."""
Speeds = dict[str, list[float]]
"""Tokens per second by length, a value each round."""

RIVAL_BATCHES = {1: "text by text", 32: "batches of 32, padded"}
PEOPLES_FILE = "int8-dynamic"


@dataclass(frozen=True)
class Rounds:
    """How speed is measured."""

    count: int
    seconds: float
    """Of each measurement."""


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
class _Loaded:
    """A way in its process."""

    recipe: str
    number: int
    artefact: Artefact
    bench: Workbench
    card: fidelity.FidelityCard | None
    ndcg10: float | None

    def row(self, speeds: Speeds) -> Row:
        """Ask for what is left and put it all together."""
        way = RECIPES[self.recipe].ways[self.number]
        return Row(
            engine=way.engine,
            recipe=self.recipe,
            method=way.method,
            size_bytes=self.artefact.size_bytes,
            resident_bytes=self.bench.ask("machine")["resident_bytes"],
            speeds=speeds,
            is_batch_invariant=self.bench.ask("is_batch_invariant"),
            card=self.card,
            ndcg10=self.ndcg10,
        )


@dataclass(frozen=True)
class _Rivals:
    """One way to batch, with the ways to use the cores; whichever is faster at a length counts."""

    batch: int
    members: list[Rival]
    file: Artefact
    card: fidelity.FidelityCard
    ndcg10: float | None
    is_batch_invariant: bool

    def row(self, speeds: Sequence[Speeds]) -> Row:
        """Take the faster member at each length, and the memory of the smallest."""
        return Row(
            engine="onnxruntime",
            recipe="",
            method=f"optimum's dynamic int8, {RIVAL_BATCHES[self.batch]}",
            size_bytes=self.file.size_bytes,
            resident_bytes=min(one.resident_bytes() for one in self.members),
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
    with ExitStack() as benches:
        loaded = [
            _load(model, recipe, number, workshop, benches, judged_by)
            for recipe, number in artefacts.ways_here(recipes)
        ]
        file = _peoples_file(model, loaded, workshop)
        rivals = [_rival(batch, model, file, benches, judged_by) for batch in RIVAL_BATCHES]
        timed = {f"way {n}": _speed_of(one.bench) for n, one in enumerate(loaded)}
        for group in rivals:
            timed |= {f"rival {one.way}": one.speed for one in group.members}
        speeds = in_turns(timed, LENGTHS, rounds)
        return Measured(
            [one.row(speeds[f"way {n}"]) for n, one in enumerate(loaded)],
            [g.row([speeds[f"rival {one.way}"] for one in g.members]) for g in rivals],
        )


def measure_base(
    model: Model, recipes: Sequence[str], workshop: Workshop, rounds: Rounds
) -> list[Row]:
    """Measure size, memory and speed at 128 tokens of every way of the recipes."""
    with ExitStack() as benches:
        loaded = [
            _load(model, recipe, number, workshop, benches, None)
            for recipe, number in artefacts.ways_here(recipes)
        ]
        timed = {str(n): _speed_of(one.bench) for n, one in enumerate(loaded)}
        speeds = in_turns(timed, ("128",), rounds)
        return [one.row(speeds[str(n)]) for n, one in enumerate(loaded)]


def in_turns(
    timed: Mapping[str, Speed], lengths: Sequence[str], rounds: Rounds
) -> dict[str, Speeds]:
    """Time each at each length, once a round."""
    speeds: dict[str, Speeds] = {name: {length: [] for length in lengths} for name in timed}
    for number in range(rounds.count):
        tell(f"speed, round {number + 1} of {rounds.count}")
        for length in lengths:
            for name, speed in timed.items():
                speeds[name][length].append(speed(length, rounds.seconds))
    return speeds


def tell(stage: str) -> None:
    """Say what is being done."""
    print(stage, file=sys.stderr, flush=True)


def _load(
    model: Model,
    recipe: str,
    number: int,
    workshop: Workshop,
    benches: ExitStack,
    judged_by: Judge | None,
) -> _Loaded:
    way = RECIPES[recipe].ways[number]
    tell(f"{recipe} on {way.engine}: {way.method}")
    artefact = artefacts.build(model, recipe, number, workshop)
    bench = artefacts.load(model, artefact, workshop, benches)
    if judged_by is None:
        return _Loaded(recipe, number, artefact, bench, None, None)
    card = judged_by.card(artefacts.encode(bench, fidelity.reference_texts(), model.folder))

    def embed() -> Vectors:
        # In a process of its own: the memory of the one that is timed is to be that of its speed.
        with ExitStack() as others:
            other = artefacts.load(model, artefact, workshop, others)
            return artefacts.encode(other, texts_of(judged_by), model.folder)

    return _Loaded(recipe, number, artefact, bench, card, judged_by.ndcg(artefact.identity, embed))


def texts_of(judged_by: Judge) -> list[str]:
    """Return the retrieval's texts."""
    return judged_by.retrieval.texts if judged_by.retrieval else []


def _peoples_file(model: Model, loaded: Sequence[_Loaded], workshop: Workshop) -> Artefact:
    for one in loaded:
        if one.recipe == PEOPLES_FILE:
            return one.artefact
    return artefacts.build(model, PEOPLES_FILE, 0, workshop)


def _rival(
    batch: int, model: Model, file: Artefact, benches: ExitStack, judged_by: Judge
) -> _Rivals:
    tell(f"optimum's int8, {RIVAL_BATCHES[batch]}")
    cores = available_cores()
    files = Files(file.graph, model.tokenizer, model.max_tokens, model.pad_token_id)
    members = []
    for way in (Way(batch, workers=1, threads=cores), Way(batch, workers=cores, threads=1)):
        members.append(Rival(files, way))
        benches.callback(members[-1].close)
    texts = fidelity.reference_texts()
    together, mixed = members[0].encode(texts), members[0].encode(texts[1::2])

    def embed() -> Vectors:
        other = Rival(files, members[1].way)
        try:
            return other.encode(texts_of(judged_by))
        finally:
            other.close()

    return _Rivals(
        batch,
        members,
        file,
        judged_by.card(together),
        judged_by.ndcg((*file.identity, f"padded by {batch}"), embed),
        # Half of the texts have other neighbours now, where they have any.
        together[1::2].tobytes() == mixed.tobytes(),
    )


def _speed_of(bench: Workbench) -> Speed:
    return lambda length, seconds: float(bench.ask("speed", of=length, seconds=seconds))
