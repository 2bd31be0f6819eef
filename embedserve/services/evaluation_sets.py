"""Judged sets in folders: BEIR's layout, and questions with the spans that answer them.

What a set says of documents or queries that it does not have is left out and counted, never lost
silently; what cannot be read at all is an error with its line. Nothing is embedded here.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from embedserve.errors import InvalidRequestError, PathNotFoundError
from embedserve.ranking.metrics import DocumentSpan

SetKind = Literal["ranking", "spans"]
Half = Literal["all", "first", "second"]
LAYOUTS = (
    "A set has corpus.jsonl, queries.jsonl and qrels/*.tsv (BEIR), or corpora/*.md and "
    "questions.jsonl (spans); docs/evaluation.md shows both."
)


@dataclass(frozen=True)
class SetDocument:
    """One text of a set."""

    id: str
    title: str
    text: str
    kind: Literal["text", "markdown"] = "text"


@dataclass(frozen=True)
class SetQuery:
    """What is asked, and what answers it: documents with their gain, or spans of documents."""

    id: str
    text: str
    gains: Mapping[str, int] = field(default_factory=dict)
    """Of documents, those above 0 alone answer."""
    spans: tuple[DocumentSpan, ...] = ()

    @property
    def draw(self) -> str:
        """Return what queries are drawn and halved by: even in no matter what order or ids."""
        return hashlib.sha256(self.id.encode()).hexdigest()

    def is_of(self, half: Half) -> bool:
        """Tell whether the query belongs to a half: by the last bit of what it is drawn by."""
        is_odd = bool(int(self.draw[-1], 16) % 2)
        return half == "all" or is_odd == (half == "second")


@dataclass(frozen=True)
class JudgedSet:
    """A set as it was read."""

    name: str
    kind: SetKind
    documents: tuple[SetDocument, ...]
    queries: tuple[SetQuery, ...]
    notes: tuple[str, ...] = ()
    """What was left out, in a sentence each."""

    @property
    def digest(self) -> str:
        """Name the documents: the same texts under the same ids and titles give the same."""
        rows = [[one.id, one.title, one.text, one.kind] for one in self.documents]
        return hashlib.sha256(json.dumps(rows).encode()).hexdigest()

    def drawn(self, halves: Collection[Half], *, most: int | None = None) -> "JudgedSet":
        """Return the set with the queries of some halves, and no more than so many of them.

        Which they are follows from their ids alone. Raises InvalidRequestError where a half is
        empty.
        """
        kept = [query for query in self.queries if any(query.is_of(half) for half in halves)]
        if most is not None:
            drawn = {query.id for query in sorted(kept, key=lambda one: one.draw)[:most]}
            kept = [query for query in kept if query.id in drawn]
        for half in halves:
            if not any(query.is_of(half) for query in kept):
                raise InvalidRequestError(
                    f"`{self.name}` has no query in its {half} half; take `--half all`."
                )
        return replace(self, queries=tuple(kept))


def read_set(folder: Path, *, split: str | None = None) -> JudgedSet:
    """Read a set of either layout; `split` names the file of judgements where there are several.

    Raises PathNotFoundError, and InvalidRequestError for what is no set or is malformed.
    """
    if not folder.is_dir():
        raise PathNotFoundError(f"`{folder}` is no folder. {LAYOUTS}")
    if (folder / "corpus.jsonl").exists():
        found = _read_beir(folder, split)
    elif (folder / "questions.jsonl").exists():
        found = _read_spans(folder)
    else:
        raise InvalidRequestError(f"`{folder}` is of no known layout. {LAYOUTS}")
    if not found.queries:
        told = " ".join(found.notes) or "It has no query."
        raise InvalidRequestError(f"`{folder}` has no query that can be judged. {told}")
    return found


def _read_beir(folder: Path, split: str | None) -> JudgedSet:
    left_out: Counter[str] = Counter()
    documents = _corpus(folder / "corpus.jsonl", left_out)
    asked = _asked(folder / "queries.jsonl")
    queries = []
    for id_, gains in _judgements(_qrels_of(folder, split)).items():
        known = {one: gain for one, gain in gains.items() if one in documents}
        left_out["judgements of documents that corpus.jsonl lacks"] += len(gains) - len(known)
        if id_ not in asked:
            left_out["judged queries that queries.jsonl lacks"] += 1
        elif not asked[id_].strip():
            left_out["queries without text"] += 1
        elif not any(gain > 0 for gain in known.values()):
            left_out["queries that no document answers"] += 1
        else:
            queries.append(SetQuery(id_, asked[id_], gains=known))
    name = folder.resolve().name
    return JudgedSet(name, "ranking", tuple(documents.values()), tuple(queries), _notes(left_out))


def _corpus(path: Path, left_out: Counter[str]) -> dict[str, SetDocument]:
    documents: dict[str, SetDocument] = {}
    for place, row in _rows(path):
        document = SetDocument(
            _text(row, "_id", place), _text(row, "title", place, ""), _text(row, "text", place)
        )
        if document.id in documents:
            raise InvalidRequestError(f"{place}: the id `{document.id[:80]}` is there twice.")
        if not document.text.strip():  # BEIR has documents of a title alone
            document = replace(document, title="", text=document.title)
        if document.text.strip():
            documents[document.id] = document
        else:
            left_out["documents without text"] += 1
    return documents


def _asked(path: Path) -> dict[str, str]:
    found: dict[str, str] = {}
    for place, row in _rows(path):
        id_ = _text(row, "_id", place)
        if id_ in found:
            raise InvalidRequestError(f"{place}: the id `{id_[:80]}` is there twice.")
        found[id_] = _text(row, "text", place)
    return found


def _qrels_of(folder: Path, split: str | None) -> Path:
    found = sorted((folder / "qrels").glob("*.tsv"))
    names = [path.stem for path in found]
    if not found:
        raise PathNotFoundError(
            f"`{folder}` has no judgements: `qrels/test.tsv`, or another `qrels/*.tsv`, is missing."
        )
    wanted = split or ("test" if "test" in names else names[0])
    if wanted not in names or (split is None and "test" not in names and len(names) > 1):
        raise InvalidRequestError(
            f"`{folder / 'qrels'}` has {', '.join(names)}; name one of them with `--split`."
        )
    return found[names.index(wanted)]


def _judgements(path: Path) -> dict[str, dict[str, int]]:
    """Read the gain of documents by query: three columns, with BEIR's header or without."""
    found: dict[str, dict[str, int]] = {}
    for number, line in enumerate(_lines(path), start=1):
        cells = line.rstrip("\n").split("\t")
        if not line.strip() or (number == 1 and cells[0] == "query-id"):
            continue
        place = f"`{path}`, line {number}"
        if len(cells) != 3:
            raise InvalidRequestError(
                f"{place}: it has {len(cells)} columns instead of three, separated by tabs: "
                "query-id, corpus-id, score."
            )
        query, document, score = cells
        try:
            found.setdefault(query, {})[document] = int(score)
        except ValueError as error:
            raise InvalidRequestError(
                f"{place}: the score `{score[:40]}` is no whole number."
            ) from error
    return found


def _read_spans(folder: Path) -> JudgedSet:
    paths = sorted((folder / "corpora").glob("*.md"))
    if not paths:
        raise PathNotFoundError(f"`{folder}` has no text: `corpora/*.md` is missing. {LAYOUTS}")
    texts = {path.stem: "".join(_lines(path)) for path in paths}
    left_out: Counter[str] = Counter()
    queries: list[SetQuery] = []
    for place, row in _rows(folder / "questions.jsonl"):
        corpus, text = _text(row, "corpus", place), _text(row, "question", place)
        if corpus not in texts:
            left_out["questions about texts that corpora/ lacks"] += 1
            continue
        spans = _spans(row, place, corpus, texts[corpus])
        left_out["answers that are not in their text at that place"] += spans.count(None)
        known = tuple(span for span in spans if span)
        if not text.strip():
            left_out["questions without text"] += 1
        elif not known:
            left_out["questions without an answer"] += 1
        else:
            id_ = _text(row, "id", place, f"line {len(queries)}")
            queries.append(SetQuery(id_, text, spans=known))
    documents = tuple(SetDocument(name, "", text, "markdown") for name, text in texts.items())
    return JudgedSet(folder.resolve().name, "spans", documents, tuple(queries), _notes(left_out))


def _spans(row: dict[str, Any], place: str, corpus: str, text: str) -> list[DocumentSpan | None]:
    """Read the answers of one question; None is one that does not stand where it says."""
    found: list[DocumentSpan | None] = []
    references = row.get("references")
    for one in references if isinstance(references, list) else [None]:
        named = one if isinstance(one, dict) else {}
        start, end = named.get("start_index"), named.get("end_index")
        if not (isinstance(start, int) and isinstance(end, int)):
            raise InvalidRequestError(
                f"{place}: `references` must be a list of objects with `start_index`, `end_index` "
                "and, for a check, `content`."
            )
        is_there = 0 <= start < end <= len(text)
        is_same = is_there and named.get("content", text[start:end]) == text[start:end]
        found.append(DocumentSpan(corpus, start, end) if is_same else None)
    return found


def _rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Read JSON Lines: each object, and where it stands."""
    for number, line in enumerate(_lines(path), start=1):
        if not line.strip():
            continue
        place = f"`{path}`, line {number}"
        try:
            row = json.loads(line)
        except ValueError as error:
            raise InvalidRequestError(f"{place}: it is no valid JSON ({error}).") from error
        if not isinstance(row, dict):
            raise InvalidRequestError(f"{place}: it must be an object, one a line.")
        yield place, row


def _lines(path: Path) -> Iterator[str]:
    """Give the lines with their ends as they are: places in a text count every character."""
    try:
        with path.open(encoding="utf-8", newline="\n") as file:
            yield from file
    except FileNotFoundError as error:
        raise PathNotFoundError(f"`{path}` is missing. {LAYOUTS}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidRequestError(f"`{path}` cannot be read as UTF-8 text: {error}.") from error


def _text(row: dict[str, Any], key: str, place: str, default: str | None = None) -> str:
    value = row.get(key, default)
    if isinstance(value, int) and key in ("_id", "id") and not isinstance(value, bool):
        value = str(value)  # some sets have numbers
    if value is None and default is not None:
        return default
    if not isinstance(value, str):
        raise InvalidRequestError(f"{place}: `{key}` must be a text.")
    return value


def _notes(left_out: Mapping[str, int]) -> tuple[str, ...]:
    return tuple(f"Left out: {count} {what}." for what, count in left_out.items() if count)
