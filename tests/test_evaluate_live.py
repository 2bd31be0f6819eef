"""`embedserve eval` with the real model, Chroma and jobs, on small sets."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from embedserve.cli.app import app
from tests.live import LiveServer, environment
from tests.test_evaluation_sets import write_beir, write_spans

PATIENCE_S = 240
MODES = ["hybrid", "dense", "lexical"]
SUBJECTS = {
    "tea": "Green tea is brewed at 70 degrees for two minutes, black tea with boiling water.",
    "bread": "Rye bread needs sourdough, or the crumb stays wet; it is baked for an hour.",
    "well": "The well of the monastery is closed in winter because its chain freezes.",
    "boats": "Herring boats leave the harbour before sunrise and come back at noon.",
}
ASKED = {
    "tea": "How hot should the water for green tea be?",
    "bread": "Why does rye bread need sourdough?",
    "well": "When can nobody fetch water at the monastery?",
    "boats": "At what time do fishermen go out for herring?",
}


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A set of each layout, with a judgement of a document that is not there."""
    folder = tmp_path_factory.mktemp("sets")
    corpus: list[dict[str, object]] = [
        {"_id": f"{name}/1 ü", "title": name.title(), "text": text}
        for name, text in SUBJECTS.items()
    ]
    queries: list[dict[str, object]] = [{"_id": name, "text": text} for name, text in ASKED.items()]
    rows = "".join(f"{name}\t{name}/1 ü\t1\n" for name in SUBJECTS)
    qrels = f"query-id\tcorpus-id\tscore\n{rows}tea\tlost\t1\n"
    ranked = write_beir(folder / "subjects", corpus=corpus, queries=queries, qrels={"test": qrels})
    text = "# Notes\n\n" + "\n\n".join(SUBJECTS.values()) + "\n"
    questions: list[dict[str, object]] = [
        {
            "id": name,
            "corpus": "book",
            "question": ASKED[name],
            "references": [
                {
                    "content": answer,
                    "start_index": text.index(answer),
                    "end_index": text.index(answer) + len(answer),
                }
            ],
        }
        for name, answer in SUBJECTS.items()
    ]
    return [ranked, write_spans(folder / "spans", questions, text)]


def evaluate(*arguments: str, models: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "embedserve", "eval", *arguments],
        env=environment(EMBEDSERVE_HOME=str(models)),
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )


def files_of(home: Path) -> list[Path]:
    """List what a home holds, without the locks: other tests ask for models there meanwhile."""
    return sorted(path for path in home.rglob("*") if ".locks" not in path.parts)


def test_json_has_one_row_for_each_mode_and_nothing_else_is_printed(
    model_home: Path, sets: list[Path], tmp_path: Path
) -> None:
    report, kept = tmp_path / "report.md", tmp_path / "kept"
    before = files_of(model_home)
    folders = [str(folder) for folder in sets]
    ended = evaluate(
        *folders, "--json", "--report", str(report), "--home", str(kept), models=model_home
    )
    assert ended.returncode == 0, ended.stderr
    printed = json.loads(ended.stdout)
    assert list(printed) == ["results"]
    rows = printed["results"]
    assert [(row["dataset"], row["mode"]) for row in rows] == [
        (name, mode) for name in ("subjects", "spans") for mode in MODES
    ]
    for row in rows:
        assert (row["queries"], row["recipe"], row["chunk_tokens"]) == (4, row["recipe"], 128)
        assert 0 < row["p50_ms"] <= row["p99_ms"]
    for row in rows[:3]:
        assert {"ndcg@10", "recall@10", "recall@100", "mrr@10"} <= {*row}
        assert row["recall@100"] == 1.0
        assert (row["documents"], row["chunks"]) == (4, 4)
    assert rows[0]["ndcg@10"] == 1.0
    for row in rows[3:]:
        assert row["span_recall@1000"] == 1.0
        assert row["span_iou@1000"] == pytest.approx(row["span_precision@1000"], abs=0.001)
    assert "Left out: 1 judgements of documents that corpus.jsonl lacks." in ended.stderr
    assert report.with_suffix(".svg").read_text().startswith("<svg")
    assert "## spans" in report.read_text()
    # The home that the model is from stays as it was; the other was kept.
    assert files_of(model_home) == before
    assert (kept / "catalog.sqlite3").exists()


@pytest.mark.parametrize(
    ("arguments", "words", "code"),
    [
        (["{absent}"], "is no folder", 3),
        (["{set}", "--mode", "both"], "`both` is not one of hybrid, dense, lexical", 1),
        (["{set}", "--chunk-tokens", "small"], "no list of numbers", 1),
        (["{set}", "--half", "third"], "`third` is not one of all, first, second", 1),
        (["{set}", "--model", "no-such-model"], "not found, try pulling it first", 3),
    ],
)
def test_what_cannot_be_evaluated_says_why(
    model_home: Path, sets: list[Path], tmp_path: Path, arguments: list[str], words: str, code: int
) -> None:
    places = {"{absent}": str(tmp_path / "absent"), "{set}": str(sets[0])}
    ended = evaluate(*(places.get(one, one) for one in arguments), models=model_home)
    assert (ended.returncode, ended.stdout) == (code, ""), ended.stderr
    assert words in " ".join(ended.stderr.split())


def call(*arguments: str, home: Path) -> Result:
    return CliRunner().invoke(app, ["eval", *arguments, "--home", str(home)])


def test_an_index_is_judged_by_its_user(server: LiveServer, tmp_path: Path) -> None:
    documents = [{"name": f"{name}.md", "text": text} for name, text in SUBJECTS.items()]
    server.http.put("/indexes/judged", json={}).raise_for_status()
    sent = server.http.post("/indexes/judged/documents", json={"documents": documents})
    server.wait_for_job(sent.json()["job"]["id"])
    file, questions = tmp_path / "judged.csv", tmp_path / "questions.txt"
    questions.write_text("\n".join([*ASKED.values(), ""]), encoding="utf-8")
    made = call(
        *("make", "judged", "--questions", str(questions), "--output", str(file)), home=server.home
    )
    assert made.exit_code == 0, made.output
    assert "Write into `grade`" in made.stdout
    with file.open(encoding="utf-8", newline="") as opened:
        rows = list(csv.DictReader(opened))
    assert len(rows) == 16  # every question with each of four passages, once
    answers = {question: SUBJECTS[name][:20] for name, question in ASKED.items()}
    for row in rows:
        row["grade"] = "2" if row["passage"].startswith(answers[row["question"]]) else "0"
    with file.open("w", encoding="utf-8", newline="") as opened:
        writer = csv.DictWriter(opened, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    told = call(
        *("run", str(file), "-i", "judged", "--set", "mode=dense", "--json"), home=server.home
    )
    assert told.exit_code == 0, told.output
    first, second = json.loads(told.stdout)["results"]
    assert (first["setting"], second["setting"]) == ("as it is", "mode=dense")
    assert (first["queries"], first["recall@10"], first["judged@10"]) == (4, 1.0, 1.0)
    # Four questions tell nothing from chance: the smallest p of four signs is 1/8.
    assert second["against_first"]["is_told_apart"] is False
    printed = call("run", str(file), "-i", "judged", home=server.home)
    assert "4 questions are few" in printed.stderr
    assert printed.stdout.count("tell from chance") == 3
    wrong = call("run", str(file), "-i", "judged", "--set", "mode=best", home=server.home)
    assert "`mode=best` is none of" in str(wrong.exception)


def test_passages_are_drawn_to_write_questions_about(server: LiveServer, tmp_path: Path) -> None:
    documents = [{"name": f"{name}.md", "text": text} for name, text in SUBJECTS.items()]
    server.http.put("/indexes/drawn", json={}).raise_for_status()
    sent = server.http.post("/indexes/drawn/documents", json={"documents": documents})
    server.wait_for_job(sent.json()["job"]["id"])
    file = tmp_path / "drawn.csv"
    made = call("make", "drawn", "--count", "3", "--output", str(file), home=server.home)
    assert made.exit_code == 0, made.output
    with file.open(encoding="utf-8", newline="") as opened:
        rows = list(csv.DictReader(opened))
    assert len(rows) == len({row["document"] for row in rows}) == 3
    assert {(row["question"], row["grade"]) for row in rows} == {("", "2")}
    empty = call("run", str(file), "-i", "drawn", home=server.home)
    assert "no question with an answer" in str(empty.exception)
