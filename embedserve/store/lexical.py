"""Full-text search over the chunks of an index: BM25, exact, from segments in the catalog.

Chunks come in and go in the transactions that bring and take them (store/lexical_rows.py). A query
reads one snapshot, and nothing is built for it.
"""

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count as counter
from threading import Event, Lock

import numpy as np
from numpy.typing import NDArray

from embedserve.store.bm25 import Part, best, rank
from embedserve.store.database import Database
from embedserve.store.lexical_care import LexicalHealth, index_pending, look, reconcile
from embedserve.store.lexical_rows import Segment, begin_anew, segments_of
from embedserve.store.meeting import Meeting, live
from embedserve.store.rows import NO_HITS
from embedserve.store.segment_cache import SegmentCache
from embedserve.store.segment_merge import due, merge_segments, scattered
from embedserve.store.segment_reader import SegmentReader
from embedserve.store.spelling import nearest, spelt, vocabulary
from embedserve.store.words import Words, key_of, words_of
from embedserve.types import Index, ScoredIds, SqlCondition

MOST_TERMS = 256
"""Of a query: more than a model reads of one."""
MOST_CHARS = 20_000
"""Of a query: several times what so many terms take. One word of a megabyte has 500,000 parts."""

TIDY_EVERY = 8
"""Commits after which it is asked whether segments are due: there are a few more until then."""
QUIET_S = 5.0
"""Without a write, after which a query has segments gathered: while documents come in, it would be
done again and again."""
ASKED_FIRST = 4
"""So many chunks for each that is wanted are asked whether they meet a condition; then all are."""


@dataclass(frozen=True)
class QueryTerms:
    """What a question asks full-text search for."""

    terms: tuple[str, ...]
    """Distinct, in order; none where it holds no letter and no digit."""
    is_cut: bool = False
    """Whether there was more than MOST_TERMS or MOST_CHARS, of which the first are taken."""


class Lexical:
    """Search, and keep segments in order."""

    def __init__(self, database: Database, meeting: Meeting, *, quiet_s: float = QUIET_S) -> None:
        self._database = database
        self._meeting = meeting
        self._quiet_s = quiet_s
        self._cache = SegmentCache()
        self._merging = Lock()
        self.has_pending = Event()
        """Set when chunks may wait to be indexed, or segments to be gathered; whoever does it
        clears it."""
        self.has_pending.set()
        self._commits = counter()

    def words(self, index: Index) -> Words:
        """Return what reads texts and questions of an index, for their terms and places."""
        with self._database.read() as connection:
            row = connection.execute(
                "SELECT language FROM indexes WHERE id = ?", (index.id,)
            ).fetchone()
        return words_of(row[0] if row else "none")

    def query_terms(self, index: Index, text: str) -> QueryTerms:
        """Return the terms of a question, whatever characters it holds.

        Stop words are left out, unless there are no other words.
        """
        terms = self.words(index).query_terms(text[:MOST_CHARS], most=MOST_TERMS + 1)
        is_cut = len(terms) > MOST_TERMS or (bool(terms) and len(text) > MOST_CHARS)
        return QueryTerms(tuple(terms[:MOST_TERMS]), is_cut)

    def search(
        self,
        index: Index,
        terms: Sequence[str],
        *,
        count: int,
        among: NDArray[np.int64] | SqlCondition | None = None,
    ) -> ScoredIds:
        """Return the best chunks by BM25, best first; one that stands for its text in each case.

        `among` restricts them to ids, ascending, or to those whose text some chunk has that meets
        a condition. Statistics are of the whole index either way.
        """
        keys = _keys(terms)
        with self._database.read() as connection:
            segments = segments_of(connection, index.id)
            if not len(keys) or not segments:
                return NO_HITS
            if self._database.quiet_s > self._quiet_s and scattered(segments):
                self.has_pending.set()
            reader = SegmentReader(connection, self._cache)
            ranking = rank([_part(reader, one, keys) for one in segments], len(keys))
            if isinstance(among, SqlCondition):
                return self._filtered(connection, index.id, ranking, among, count)
            return best(ranking if among is None else _restricted(ranking, among), count)

    def pending(self, index_id: int) -> int:
        """Count the chunks that wait to be indexed; a search misses them until then."""
        with self._database.read() as connection:
            row = connection.execute(
                "SELECT count(*) FROM lexical_pending p JOIN chunks c ON c.index_id = p.index_id"
                " AND c.id BETWEEN p.first_id AND p.last_id WHERE p.index_id = ?",
                (index_id,),
            ).fetchone()
            return int(row[0])

    def suggest(self, index: Index, text: str, *, count: int = 3) -> dict[str, list[str]]:
        """Map words of a question that no chunk has to some that chunks have, the likeliest first.

        Reads all words of the index, some tenths of a second for a large one.
        """
        words = self.words(index)
        asked = [*dict.fromkeys(filter(None, map(spelt, words.split(text[:MOST_CHARS]))))][
            :MOST_TERMS
        ]
        with self._database.read() as connection:
            segments = segments_of(connection, index.id)
            reader = SegmentReader(connection, self._cache)

            def frequency(word: str) -> int:
                keys = _keys(words.query_terms(word))
                return sum(len(m.places) for one in segments for m in reader.matches(one, keys))

            unknown = sorted(word for word in asked if not frequency(word))
            known = vocabulary(connection, index.id) if unknown else set()
            found = {word: nearest(word, known, frequency, count=count) for word in unknown}
        return {word: near for word, near in found.items() if near}

    def came(self, index_id: int, *, are_waiting: bool) -> None:
        """Tell that chunks came, after the transaction that brought them.

        `are_waiting`: some may have to be indexed yet.
        """
        if are_waiting:
            self.has_pending.set()
        elif next(self._commits) % TIDY_EVERY == 0:
            self.tidy(index_id)

    def index_pending(self, index_id: int) -> bool:
        """Index some of the chunks that wait for it; False when none do."""
        is_more = index_pending(self._database, index_id)
        self.tidy(index_id)
        return is_more

    def look(self, index_id: int) -> LexicalHealth:
        """Compare what is indexed with the chunks, and read all of it."""
        return look(self._database, index_id)

    def mend(self, index_id: int, health: LexicalHealth) -> None:
        """Put right what a look found; what cannot be read is indexed anew, in steps."""
        with self._database.write() as connection:
            if health.damaged:
                begin_anew(connection, index_id)
            else:
                reconcile(connection, index_id)
        self.has_pending.set()

    def begin_anew(self, index_id: int) -> None:
        """Index all chunks again, in steps."""
        with self._database.write() as connection:
            begin_anew(connection, index_id)
        self.has_pending.set()

    def tidy(self, index_id: int, *, least_gone: float = 0.5) -> bool:
        """Put segments together that are due; False when another thread is at it.

        To be called when chunks came or went. `least_gone` is the share of a segment's chunks
        that have to be gone for it to be written anew.
        """
        if not self._merging.acquire(blocking=False):
            return False
        try:
            while True:
                with self._database.read() as connection:
                    chosen = due(segments_of(connection, index_id), least_gone=least_gone)
                if not chosen or not merge_segments(self._database, index_id, chosen):
                    return True
        finally:
            self._merging.release()

    def gather(self, index_id: int) -> None:
        """Leave few segments to an index that is asked and not written to."""
        with self._merging:
            while self._database.quiet_s > self._quiet_s:
                with self._database.read() as connection:
                    chosen = scattered(segments_of(connection, index_id))
                if not chosen or not merge_segments(self._database, index_id, chosen):
                    return

    def _filtered(
        self,
        connection: sqlite3.Connection,
        index_id: int,
        ranking: ScoredIds,
        among: SqlCondition,
        count: int,
    ) -> ScoredIds:
        """Return the best that meet a condition: it is asked of the best first, then of all."""
        known = self._meeting.known(index_id, among)
        if known is None:
            asked = best(ranking, ASKED_FIRST * count)
            met = _met(connection, index_id, asked.ids.tolist(), among, count)
            if len(met) >= count or len(asked.ids) == len(ranking.ids):
                return best(_restricted(asked, met), count)
            known = self._meeting.ids(index_id, among)
        return best(_restricted(ranking, known), count)


def _met(
    connection: sqlite3.Connection,
    index_id: int,
    ids: Sequence[int],
    among: SqlCondition,
    count: int,
) -> NDArray[np.int64]:
    """Return which of some chunks meet a condition, in their order; `count` of them are enough."""
    met: list[int] = []
    for start in range(0, len(ids), 2 * count):
        met += live(connection, index_id, ids[start : start + 2 * count], among)
        if len(met) >= count:
            break
    return np.array(met, np.int64)


def _keys(terms: Sequence[str]) -> NDArray[np.int64]:
    return np.array([key_of(term) for term in dict.fromkeys(terms)], np.int64)


def _part(reader: SegmentReader, segment: Segment, keys: NDArray[np.int64]) -> Part:
    chunks = reader.chunks(segment)
    matches = list(reader.matches(segment, keys))
    return Part(chunks.ids, chunks.lengths, segment.gone(), matches)


def _restricted(ranking: ScoredIds, ids: NDArray[np.int64]) -> ScoredIds:
    return ranking.where(np.isin(ranking.ids, ids))
