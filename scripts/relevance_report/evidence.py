"""What the legs say of hits, and whether these answer: rows to fit on.

Every question is asked of its own set, and some of other sets too, where nothing answers it.
"""

import json
import re
import sqlite3
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from embedserve.ranking.calibration import overlap
from embedserve.ranking.fusion import Leg, fuse_ranks
from embedserve.store.rows import NO_HITS
from embedserve.types import ScoredIds, Vectors
from scripts.relevance_report.sets import JudgedSet, Question

DEPTH, HITS = 50, 10
OWN, FOREIGN = 80, 25
"""Questions of one half of a set, asked of itself and of each other set."""
# The same words that say nothing, in short: questions of the sets are English.
STOP_WORDS = frozenset(
    re.findall(
        r"\w+",
        "a an and are as at be but by for from had has have he her him his how i if in into is it"
        " its many much no not of on or our she such that the their then there these they this to"
        " was we were what when where which who whom why will with you your do does did can could"
        " would should than so about also been being any all some more most other",
    )
)

Rows = NDArray[np.float64]
"""(hits, 4): cosine, BM25 by term, overlap, and 1 where the hit answers."""


def gather(sets: Sequence[JudgedSet], half: int) -> list[Rows]:
    """Return the rows of each set, of the questions of one half (0 or 1)."""
    found = []
    for one in sets:
        search = _Search(one)
        rows = []
        for number in range(half, len(one.questions), 2)[:OWN]:
            rows += search.rows(one.questions[number], one.asked[number], is_own=True)
        for other in sets:
            for number in range(half, len(other.questions), 2)[
                : FOREIGN if other is not one else 0
            ]:
                rows += search.rows(other.questions[number], other.asked[number], is_own=False)
        found.append(np.array(rows, dtype=np.float64))
    return found


class _Search:
    """Both legs over one set."""

    def __init__(self, judged: JudgedSet) -> None:
        self._set = judged
        self._database = sqlite3.connect(":memory:")
        self._database.execute("CREATE VIRTUAL TABLE t USING fts5(x, tokenize='porter unicode61')")
        rows = list(enumerate(judged.texts))
        self._database.executemany("INSERT INTO t (rowid, x) VALUES (?, ?)", rows)

    def rows(self, question: Question, vector: Vectors, *, is_own: bool) -> list[list[float]]:
        """Return the evidence of the best hits of a question."""
        terms = _terms(question.text)
        cosines = self._set.vectors @ vector
        nearest = np.argsort(-cosines, kind="stable")[:DEPTH]
        dense = ScoredIds(nearest, cosines[nearest].astype(np.float64))
        fused = fuse_ranks([Leg("dense", dense), Leg("lexical", self._best(terms))])[:HITS]
        bm25 = {hit.id: hit.score for hit in self._best(terms, among=[hit.id for hit in fused])}
        return [
            [
                float(cosines[hit.id]),
                bm25.get(hit.id, 0.0) / max(len(terms), 1),
                overlap(terms, self._set.texts[hit.id]),
                float(is_own and self._set.answers(question, hit.id)),
            ]
            for hit in fused
        ]

    def _best(self, terms: Sequence[str], among: Sequence[int] | None = None) -> ScoredIds:
        if not terms:
            return NO_HITS
        condition = "" if among is None else "AND rowid IN (SELECT value FROM json_each(?))"
        values = [] if among is None else [json.dumps(among)]
        asked = " OR ".join(f'"{term}"' for term in terms)
        rows = self._database.execute(
            f"SELECT rowid, -bm25(t) FROM t WHERE t MATCH ? {condition}"
            f" ORDER BY 2 DESC, 1 LIMIT {DEPTH}",
            (asked, *values),
        ).fetchall()
        ids, scores = [row[0] for row in rows], [row[1] for row in rows]
        return ScoredIds(np.array(ids, np.int64), np.array(scores, np.float64))


def _terms(text: str) -> list[str]:
    words = list(dict.fromkeys(re.findall(r"\w+", text.lower())))
    return [word for word in words if word not in STOP_WORDS] or words
