"""From ranked candidates to hits: alike ones collapsed, weak ones left out, neighbours joined."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import chain, pairwise

import numpy as np

from embedserve.engine.encoder import Encoder
from embedserve.ranking.calibration import calibration_of, overlap
from embedserve.ranking.duplicates import Distinct, diversify
from embedserve.ranking.passages import (
    Passage,
    PlacedChunk,
    RankedChunk,
    fill_budget,
    merge_passages,
)
from embedserve.services.admission import forecast_one
from embedserve.services.blanks import blanks_between
from embedserve.services.search_candidates import Candidate, Candidates
from embedserve.services.search_request import Dropped, Hit, Scores, SearchRequest
from embedserve.store.catalog import Catalog
from embedserve.store.lexical import MOST_CHARS, MOST_TERMS
from embedserve.types import Index, StoredChunk

MOST_DIVERSE = 100
"""Candidates that are compared with each other where variety is asked for."""


@dataclass
class Chosen:
    """Candidates that may be answered with, best first, and what became of the others."""

    scores: Callable[[Candidate], Scores]
    """Of any of them; nothing is counted for those that nobody asks about."""
    kept: list[Candidate] = field(default_factory=list)
    alike: dict[int, list[int]] = field(default_factory=dict)
    dropped: list[Dropped] = field(default_factory=list)
    best_rejected: float | None = None


class AnswerMaker:
    """Choose among candidates and make hits of them."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog

    def choose(self, found: Candidates, request: SearchRequest) -> Chosen:
        """Leave out what is too weak or says what a better one says."""
        ranked = self._varied(found, request)
        chosen = Chosen(self._relevance(found.index, request))
        distinct: Distinct[int] = Distinct()
        for candidate in ranked:
            shown = None if request.min_score is None else chosen.scores(candidate).shown
            if shown is not None and shown < (request.min_score or 0):
                chosen.best_rejected = max(shown, chosen.best_rejected or 0.0)
                chosen.dropped.append(Dropped(candidate.id, "below min_score"))
            elif not distinct.add(candidate.id, candidate.text.chunks[0].text):
                chosen.dropped.append(Dropped(candidate.id, "near duplicate"))
            else:
                chosen.kept.append(candidate)
                if len(chosen.kept) == request.wanted:  # before more texts are read
                    break
        chosen.alike = distinct.copies
        return chosen

    def hits(self, chosen: Chosen, encoder: Encoder, request: SearchRequest) -> list[Hit]:
        """Return passages, or raw chunks that fill a budget of tokens."""
        if request.max_tokens is not None:
            return self._within_budget(chosen, encoder, request.max_tokens)
        kept = {candidate.id: candidate for candidate in chosen.kept}
        passages, around = self._passages(chosen, request.k or 1, request.passage_tokens or 0)
        made = []
        for passage in passages:
            best = kept[passage.found[0].chunk.id]
            stored = {best.id: best.text.chunks[0], **around}
            chunks = tuple(stored[chunk.id] for chunk in passage.chunks)
            made.append(_hit(best, chunks, chosen, passage.tokens))
        return made

    def _passages(
        self, chosen: Chosen, count: int, tokens: int
    ) -> tuple[list[Passage], dict[int, StoredChunk]]:
        """Return passages, and the chunks that came along, by id.

        Neighbours are read of the best ones; of others once it is seen that passages begin there.
        """
        ranked = [RankedChunk(_placed(one.text.chunks[0]), one.found.score) for one in chosen.kept]
        around: dict[int, StoredChunk] = {}
        looked: set[int] = set()
        seeds = chosen.kept[:count]
        while True:
            around |= self._around(seeds, tokens)
            looked |= {one.id for one in seeds}
            places = {(one.document_id, one.ordinal): _placed(one) for one in around.values()}
            passages = merge_passages(ranked, places, count=count, max_tokens=tokens)
            begun = {passage.found[0].chunk.id for passage in passages} - looked
            if not begun or not tokens:
                return passages, around
            seeds = [one for one in chosen.kept if one.id in begun]

    def _varied(self, found: Candidates, request: SearchRequest) -> Iterable[Candidate]:
        if not request.diversity:
            return found.since(0)
        first = found.first(MOST_DIVERSE)
        stored = self._catalog.chunks.vectors_of(found.index, [one.id for one in first])
        by_id = {one.id: one for one in first}
        there = [by_id[id_] for id_ in stored.ids.tolist()]
        scores = np.array([one.found.score for one in there])
        spread = scores.max(initial=0.0) - scores.min(initial=0.0) or 1.0
        order = diversify(
            stored.vectors,
            ((scores - scores.min(initial=0.0)) / spread).tolist(),
            count=len(there),
            trade_off=1 - request.diversity,
        )
        return chain((there[place] for place in order), found.since(len(first)))

    def _relevance(self, index: Index, request: SearchRequest) -> Callable[[Candidate], Scores]:
        """Return what scores candidates: 0..1 by what was fitted for the model."""
        calibration = calibration_of(index.model)
        words = self._catalog.lexical.words(index)
        asked = [
            words.content_words(query[:MOST_CHARS], most=MOST_TERMS) for query in request.queries
        ]

        def score(candidate: Candidate) -> Scores:
            chunk = candidate.text.chunks[0]
            said = " ".join((chunk.title, *chunk.heading, chunk.text))
            # Nothing was fitted for the model: its cosine as it is.
            relevance = max(0.0, candidate.cosine)
            if calibration:
                shared = max(overlap(query, said) for query in asked)
                relevance = calibration.relevance(candidate.cosine, shared)
            found = candidate.found.score
            return Scores(relevance, candidate.cosine, candidate.bm25, found, candidate.reranked)

        return score

    def _around(self, kept: Sequence[Candidate], tokens: int) -> dict[int, StoredChunk]:
        """Return chunks that may be joined with these, by id."""
        if not tokens:
            return {}
        places = []
        for one in kept:
            chunk = one.text.chunks[0]
            reach = max(1, tokens // max(1, _tokens(chunk)))
            places.append((chunk.document_id, chunk.ordinal - reach, chunk.ordinal + reach))
        return self._catalog.chunks.between(places)

    def _within_budget(self, chosen: Chosen, encoder: Encoder, max_tokens: int) -> list[Hit]:
        kept = {candidate.id: candidate for candidate in chosen.kept}
        chunks = [candidate.text.chunks[0] for candidate in chosen.kept]
        counted = [len(tokens) for tokens in encoder.offsets([chunk.text for chunk in chunks])]
        ranked = [
            RankedChunk(_placed(chunk, tokens), kept[chunk.id].found.score)
            for chunk, tokens in zip(chunks, counted, strict=True)
        ]
        filled = fill_budget(ranked, max_tokens=max_tokens)
        tokens = {one.chunk.id: one.chunk.tokens for one in filled}
        left_out = [id_ for id_ in kept if id_ not in tokens]
        chosen.dropped += [Dropped(id_, "no room in max_tokens") for id_ in left_out]
        return [
            _hit(kept[id_], kept[id_].text.chunks[:1], chosen, count)
            for id_, count in tokens.items()
        ]


def _hit(best: Candidate, chunks: tuple[StoredChunk, ...], chosen: Chosen, tokens: int) -> Hit:
    chunk, *others = best.text.chunks
    return Hit(
        chunk=chunk,
        text=joined_text(chunks),
        start=chunks[0].start,
        end=chunks[-1].end,
        chunks=chunks,
        scores=chosen.scores(best),
        tokens=tokens,
        also_in=tuple(others),
        places=best.text.places,
        near_duplicates=len(chosen.alike.get(best.id, ())),
        legs=best.found.legs,
    )


def joined_text(chunks: Sequence[StoredChunk]) -> str:
    """Return the text of chunks that follow each other."""
    parts = [chunks[0].text]
    for former, chunk in pairwise(chunks):
        parts += [blanks_between(former, chunk), chunk.text]
    return "".join(parts)


def _placed(chunk: StoredChunk, tokens: int | None = None) -> PlacedChunk:
    counted = _tokens(chunk) if tokens is None else tokens
    place = (chunk.ordinal, chunk.start, chunk.end)
    return PlacedChunk(chunk.id, chunk.document_id, *place, tokens=counted)


def _tokens(chunk: StoredChunk) -> int:
    """Return about how many tokens a chunk has: a passage is as long as that, more or less."""
    return forecast_one(chunk.text)
