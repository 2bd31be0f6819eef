"""Full text in the catalog: in step with the chunks in each transaction, ranked by plain BM25."""

import math
import random
import sqlite3
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from embedserve.store.catalog import Catalog
from embedserve.store.database import Database
from embedserve.store.lexical import Lexical
from embedserve.store.lexical_rows import remove_chunks, segments_of
from embedserve.store.meeting import Meeting
from embedserve.store.segment_cache import SegmentCache
from embedserve.store.segment_merge import FEW, due, merge_segments, prepare, replace_by
from embedserve.store.words import words_of
from embedserve.types import Index, SqlCondition
from tests.store_samples import catalog_with_index, document

Opened = tuple[Catalog, Index, str]
VOCABULARY = [f"w{number}x{number % 7}" for number in range(60)]


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Opened]:
    with catalog_with_index(tmp_path) as parts:
        yield parts


def ingest(opened: Opened, path: str, texts: list[str]) -> None:
    catalog, index, job = opened
    catalog.documents.commit(index, document(path, texts), job_id=job, outcome="added")


def found(opened: Opened, question: str, count: int = 10) -> list[str]:
    """Return the texts that a question finds, best first."""
    catalog, index, _ = opened
    terms = catalog.lexical.query_terms(index, question).terms
    hits = catalog.lexical.search(index, terms, count=count)
    live = catalog.chunks.by_id(index.id, [hit.id for hit in hits])
    return [live[hit.id].text for hit in hits]


def plain_bm25(folder: Path, terms: list[str]) -> dict[int, float]:
    """Score the chunks that stand for their text as the formula says, one by one."""
    with closing(sqlite3.connect(folder / "catalog.sqlite3")) as connection:
        rows = connection.execute(
            "SELECT min(c.id), d.title, c.text FROM chunks c JOIN documents d"
            " ON d.id = c.document_id GROUP BY c.text_hash"
        ).fetchall()
    words = words_of("english")
    counts = {
        id_: Counter(piece.term for piece in words.pieces(f"{title}\nTop\nÜnter\n{text}"))
        for id_, title, text in rows
    }
    mean = sum(c.total() for c in counts.values()) / max(len(counts), 1)
    scores: dict[int, float] = {}
    for term in terms:
        holding = [id_ for id_, c in counts.items() if c[term]]
        idf = math.log(1 + (len(counts) - len(holding) + 0.5) / (len(holding) + 0.5))
        for id_ in holding:
            times, length = counts[id_][term], counts[id_].total()
            norm = 1.2 * (1 - 0.75 + 0.75 * length / mean)
            scores[id_] = scores.get(id_, 0) + idf * 2.2 * times / (times + norm)
    return scores


def assert_plain(opened: Opened, folder: Path, terms: list[str]) -> None:
    catalog, index, _ = opened
    expected = plain_bm25(folder, terms)
    hits = catalog.lexical.search(index, terms, count=1000)
    assert {hit.id: hit.score for hit in hits} == pytest.approx(expected)
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
    best = catalog.lexical.search(index, terms, count=5)
    assert [*best] == [*hits[:5]]
    assert catalog.lexical.look(index.id).is_sound


@pytest.mark.parametrize("seed", [1, 2])
def test_whatever_comes_and_goes_the_ranking_is_that_of_plain_bm25(
    opened: Opened, tmp_path: Path, seed: int
) -> None:
    catalog, index, job = opened
    draw = random.Random(seed)

    def text() -> str:
        # Few enough words that some texts stand in several documents.
        return " ".join(draw.choices(VOCABULARY, k=draw.choice([1, 2, 8, 30])))

    for step in range(120):
        path = f"/d/{draw.randrange(40)}"
        if draw.random() < 0.2:
            catalog.documents.delete(index, path, job_id=job)
        else:
            ingest(opened, path, [text() for _ in range(draw.randrange(1, 6))])
        if step % 30 == 29:
            assert_plain(opened, tmp_path, draw.sample(VOCABULARY, 3))
    catalog.lexical.tidy(index.id, least_gone=0)
    assert_plain(opened, tmp_path, [*VOCABULARY[:20], "nowhere", "unter"])
    with Catalog(tmp_path / "catalog.sqlite3") as again:
        assert_plain((again, index, job), tmp_path, VOCABULARY[3:6])


def test_a_deleted_or_replaced_document_is_not_found_from_then_on(opened: Opened) -> None:
    catalog, index, job = opened
    ingest(opened, "/a", ["red apples", "green pears"])
    assert found(opened, "apple") == ["red apples"]
    ingest(opened, "/a", ["green pears"])
    assert found(opened, "apple") == []
    assert found(opened, "PEAR") == ["green pears"]
    catalog.documents.delete(index, "/a", job_id=job)
    assert found(opened, "pear") == []
    assert catalog.lexical.look(index.id).is_sound


def test_of_equal_texts_one_is_found_and_another_takes_its_place(opened: Opened) -> None:
    catalog, index, job = opened
    for path in ("/a", "/b", "/c"):
        ingest(opened, path, ["the same words", f"own words of {path[1:]}xyz"])
    assert found(opened, "same") == ["the same words"]
    for path in ("/a", "/c"):
        catalog.documents.delete(index, path, job_id=job)
        assert found(opened, "same") == ["the same words"]
        assert catalog.lexical.look(index.id).is_sound
    catalog.documents.delete(index, "/b", job_id=job)
    assert found(opened, "same") == []


@pytest.mark.parametrize(
    "question",
    ["", "the of and", '"', "a AND OR NOT (", "NEAR(x y)", "col:x^2 *", "\x00", "🙂",
     "\u202eشرق", "'", "é" * 100000, "word " * 200000],
)  # fmt: skip
def test_no_question_is_an_error(opened: Opened, question: str) -> None:
    ingest(opened, "/a", ["the word of and", "شرق"])
    assert isinstance(found(opened, question), list)


def test_a_question_of_stop_words_alone_is_answered(opened: Opened) -> None:
    ingest(opened, "/a", ["To be or not to be", "another"])
    assert found(opened, "to be or not to be") == ["To be or not to be"]


def test_a_long_question_says_that_it_was_cut(opened: Opened) -> None:
    catalog, index, _ = opened
    query = catalog.lexical.query_terms(index, " ".join(f"q{n}" for n in range(1000)))
    assert (len(query.terms), query.is_cut) == (256, True)


def test_parts_of_identifiers_and_the_whole_are_found(opened: Opened) -> None:
    ingest(opened, "/a", ["def getUserName(): pass", "call os.path.join now", "max_tokens = 3"])
    assert found(opened, "user") == ["def getUserName(): pass"]
    assert found(opened, "getusername") == ["def getUserName(): pass"]
    assert found(opened, "path") == ["call os.path.join now"]
    assert found(opened, "max_tokens") == ["max_tokens = 3"]
    assert len(found(opened, "title")) == 3  # of the document


def test_among_restricts_to_ids_or_to_a_condition_on_any_chunk_of_the_text(
    opened: Opened,
) -> None:
    catalog, index, _ = opened
    for number in range(30):
        ingest(opened, f"/d/{number}", [f"apple number {number}", "apple for all"])
    lexical, terms = catalog.lexical, ["appl"]
    everything = {hit.id for hit in lexical.search(index, terms, count=100)}
    assert len(everything) == 31
    some = np.array(sorted(everything)[4:7])
    assert {hit.id for hit in lexical.search(index, terms, count=9, among=some)} == set(some)
    last = SqlCondition("d.path = ? AND c.ordinal >= ?", ("/d/29", 0))
    hits = lexical.search(index, terms, count=2, among=last)
    texts = catalog.chunks.by_id(index.id, [hit.id for hit in hits])
    assert {chunk.text for chunk in texts.values()} == {"apple number 29", "apple for all"}
    scores = {hit.id: hit.score for hit in lexical.search(index, terms, count=100)}
    assert [hit.score for hit in hits] == [scores[hit.id] for hit in hits]
    assert not lexical.search(index, terms, count=5, among=SqlCondition("0"))


def test_what_is_indexed_anew_waits_and_is_complete_after_some_steps(
    opened: Opened, tmp_path: Path
) -> None:
    catalog, index, job = opened
    for number in range(6):
        ingest(opened, f"/d/{number}", [f"apple {number}", "pear", f"plum {number}"])
    lexical = catalog.lexical
    lexical.begin_anew(index.id)
    assert lexical.pending(index.id) == 18
    assert found(opened, "apple") == []
    database = Database(tmp_path / "catalog.sqlite3")
    other = Lexical(database, Meeting(database))
    assert other.index_pending(index.id)
    # What comes and goes meanwhile: of a text that waits, and of one that does not.
    lexical.begin_anew(index.id)
    catalog.documents.delete(index, "/d/0", job_id=job)
    ingest(opened, "/d/9", ["pear", "cherry"])
    assert found(opened, "cherry") == ["cherry"]
    while lexical.index_pending(index.id):
        pass
    database.close()
    assert lexical.pending(index.id) == 0
    assert_plain(opened, tmp_path, ["pear", "appl", "cherri"])


def test_small_segments_are_gathered_once_nobody_writes(opened: Opened, tmp_path: Path) -> None:
    _catalog, index, _ = opened
    for number in range(11):
        ingest(opened, f"/d/{number}", [f"apple {number} {'x ' * number}" for _ in range(3)])
    database = Database(tmp_path / "catalog.sqlite3")

    def segments() -> list[int]:
        with database.read() as connection:
            return [one.id for one in segments_of(connection, index.id)]

    busy = Lexical(database, Meeting(database), quiet_s=1000)
    quiet = Lexical(database, Meeting(database), quiet_s=0)
    before, hits = segments(), busy.search(index, ["appl"], count=20)
    assert len(before) == 11
    busy.has_pending.clear()
    busy.search(index, ["appl"], count=20)
    busy.gather(index.id)
    assert (busy.has_pending.is_set(), segments()) == (False, before)
    quiet.has_pending.clear()
    quiet.search(index, ["appl"], count=20)
    assert quiet.has_pending.is_set()
    quiet.gather(index.id)
    assert len(segments()) == FEW
    quiet.has_pending.clear()
    assert quiet.search(index, ["appl"], count=20).ids.tolist() == hits.ids.tolist()
    assert not quiet.has_pending.is_set()
    database.close()


def test_a_merge_keeps_what_was_removed_meanwhile_out(opened: Opened, tmp_path: Path) -> None:
    _catalog, index, _ = opened
    for number in range(5):
        ingest(opened, f"/d/{number}", [f"apple {number}", f"pear {number}"])
    database = Database(tmp_path / "catalog.sqlite3")
    with database.read() as connection:
        segments = segments_of(connection, index.id)
        merged = prepare(connection, index.id, [one.id for one in segments])
    assert merged is not None
    with database.write() as connection:
        remove_chunks(connection, index.id, merged.ids[:6:2].tolist())
        assert replace_by(connection, index.id, merged)
        [one] = segments_of(connection, index.id)
        assert (one.chunks, one.live) == (10, 7)
        assert not replace_by(connection, index.id, merged)  # they are gone
    assert len(found(opened, "apple pear")) == 7
    assert merge_segments(database, index.id, [one])
    with database.read() as connection:
        [one] = segments_of(connection, index.id)
    assert (one.chunks, one.live) == (7, 7)
    assert not merge_segments(database, index.id, segments)
    database.close()


def test_segments_stay_few(opened: Opened, tmp_path: Path) -> None:
    _catalog, index, _ = opened
    for number in range(150):
        ingest(opened, f"/d/{number}", [f"apple {number}"])
    with closing(sqlite3.connect(tmp_path / "catalog.sqlite3")) as connection:
        assert len(segments_of(connection, index.id)) < 16 + 8 + 8
        assert due([]) == []
    assert len(found(opened, "apple", 1000)) == 150


def test_damage_is_found_and_mended(opened: Opened, tmp_path: Path) -> None:
    catalog, index, _ = opened
    ingest(opened, "/a", ["red apples", "green pears"])
    with closing(sqlite3.connect(tmp_path / "catalog.sqlite3")) as connection:
        connection.execute("UPDATE lexical_blocks SET postings = zeroblob(40)")
        connection.commit()
    health = catalog.lexical.look(index.id)
    assert health.damaged
    catalog.lexical.mend(index.id, health)
    assert catalog.lexical.index_pending(index.id)
    assert catalog.lexical.look(index.id).is_sound
    assert found(opened, "apple") == ["red apples"]


def test_chunks_that_are_missing_or_too_many_are_found_and_mended(
    opened: Opened, tmp_path: Path
) -> None:
    catalog, index, _ = opened
    ingest(opened, "/a", ["red apples", "green pears"])
    ingest(opened, "/b", ["blue plums"])
    with closing(sqlite3.connect(tmp_path / "catalog.sqlite3")) as connection:
        connection.execute("DELETE FROM chunks WHERE text = 'red apples'")
        connection.execute("DELETE FROM lexical_segments WHERE first_id = 3")
        connection.commit()
    health = catalog.lexical.look(index.id)
    assert (health.missing.tolist(), health.extra.tolist()) == ([3], [1])
    catalog.lexical.mend(index.id, health)
    assert catalog.lexical.look(index.id).is_sound
    assert set(found(opened, "plum apple pear")) == {"blue plums", "green pears"}


def test_another_language_takes_other_forms_as_one(opened: Opened) -> None:
    catalog, index, _ = opened
    ingest(opened, "/a", ["Die Häuser am See", "running water"])
    assert found(opened, "run") == ["running water"]
    assert found(opened, "Haus") == []
    assert catalog.model_changes.stay(index, '{"language": "german"}')
    assert catalog.lexical.pending(index.id) == 2
    while catalog.lexical.index_pending(index.id):
        pass
    assert found(opened, "Haus") == ["Die Häuser am See"]
    assert catalog.model_changes.stay(index, '{"language": "german"}')
    assert catalog.lexical.pending(index.id) == 0


def test_two_indexes_have_statistics_of_their_own_and_go_alone(
    opened: Opened, tmp_path: Path
) -> None:
    catalog, index, job = opened
    other = catalog.indexes.create("b", "{}", model="m", artefact=index.artefact, dimensions=8)
    ingest(opened, "/a", ["red apples", "green pears"])
    for number in range(5):
        version = document(f"/{number}", [f"apples {number}"])
        catalog.documents.commit(other, version, job_id=job, outcome="added")
    catalog.indexes.delete("b")
    assert not catalog.lexical.search(other, ["appl"], count=5)
    assert_plain(opened, tmp_path, ["appl"])
    with closing(sqlite3.connect(tmp_path / "catalog.sqlite3")) as connection:
        count = connection.execute("SELECT count(*) FROM lexical_blocks").fetchone()
    assert count == (1,)


def test_misspelt_words_are_told_the_nearest_that_there_are(opened: Opened) -> None:
    catalog, index, _ = opened
    ingest(opened, "/a", ["Retrieval of proteins.", "A protein, proteins again", "Größe", "cat"])
    suggest = catalog.lexical.suggest
    assert suggest(index, "retreival of the protien") == {
        "retreival": ["retrieval"],
        "protien": ["protein", "proteins"],
    }
    assert suggest(index, "grösse car zzzzzz") == {"car": ["cat"]}
    assert suggest(index, "Proteins of retrieval") == {}


def test_what_is_kept_in_memory_is_bounded() -> None:
    class Block:
        size_bytes = 40

    cache = SegmentCache(100)
    blocks = [cache.get((number, None), Block) for number in range(5)]
    assert cache.size_bytes == 80
    assert cache.get((4, None), Block) is blocks[4]
    assert cache.get((0, None), Block) is not blocks[0]
