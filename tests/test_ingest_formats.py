"""Readers of our own, and what keeps the library from losing text."""

import os
from pathlib import Path

import pytest

from embedserve.errors import ExtractionError, StartupError
from embedserve.ingest.extract import ExtractorPool
from embedserve.ingest.kinds import FileKind
from embedserve.ingest.limits import ExtractLimits
from embedserve.ingest.rtf import read_rtf
from embedserve.ingest.tessdata import FOLDERS, language_folder

RTF = FileKind("rtf", "markdown")


def text_of(body: str | bytes) -> str:
    content = body if isinstance(body, bytes) else body.encode("ascii")
    return read_rtf(b"{\\rtf1\\ansi\\ansicpg1252 " + content + b"}", RTF).pages[0].text.strip()


# -- RTF --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (r"One\par Two\line three", "One\n\nTwo\nthree"),
        (r"caf\'e9 \u322\'3f\'f3d\'9f", "café łódŸ"),
        (r"\u-10187?\u-8704?", "\U0001d600"),
        (
            r"{\fonttbl{\f0\fcharset204 A;}{\f1\fcharset128 B;}}\f0\'cf\'f0\'e8 {\f1\'82\'a0}\'e2",
            "При あв",
        ),
        (r"{\pict 00ff}{\*\unknown hidden}{\field{\*\fldinst LINK}{\fldrslt shown}}", "shown"),
        (r"a {\b0\*\cs7 kept} b", "a kept b"),
        (r"before {\bin4 }{{\}after", "before after"),
        (r"{\stylesheet{\s1\outlinelevel0 h;}}\pard\s1 Head\par\pard body", "# Head\n\nbody"),
        (
            r"\intbl a\cell b|c\cell\row\intbl 1\par 2\cell 3\cell\row\pard end",
            "| a | b\\|c |\n| --- | --- |\n| 1 2 | 3 |\n\nend",
        ),
        (r"{\uc2\u233\'c3\'a9}t\'e9", "été"),
    ],
)
def test_rtf_gives_its_words(body: str, text: str) -> None:
    assert text_of(body) == text


def test_rtf_gives_its_title_and_nothing_behind_its_end() -> None:
    found = read_rtf(rb"{\rtf1{\info{\author X}{\title A \'fcber B}}words}garbage", RTF)
    assert (found.title, found.pages[0].text.strip()) == ("A über B", "words")


def test_rtf_of_braces_alone_takes_linear_time_and_no_recursion() -> None:
    assert text_of(b"{" * 300_000 + b"x" + b"}" * 300_000) == "x"


# -- nesting ----------------------------------------------------------------------------------


def refused(pool: ExtractorPool, folder: Path, name: str, content: str) -> ExtractionError:
    (folder / name).write_text(content)
    with pytest.raises(ExtractionError) as caught:
        pool.extract(folder / name, folder)
    return caught.value


def test_text_in_deep_containers_is_kept(pool: ExtractorPool, tmp_path: Path) -> None:
    page = tmp_path / "a.html"
    page.write_text("<div>" * 90 + "<h1>Head</h1><p>deep words</p>" + "</div>" * 90)
    assert "deep words" in pool.extract(page, tmp_path).text


def test_what_is_nested_too_deep_is_refused_by_name(pool: ExtractorPool, tmp_path: Path) -> None:
    lists = "<ul><li>" * 5_000 + "words"
    assert refused(pool, tmp_path, "a.html", lists).code == "too_nested"
    elements = "<a>" * 5_000 + "words" + "</a>" * 5_000
    error = refused(pool, tmp_path, "a.xml", elements)
    assert error.code == "too_nested"
    assert "EMBEDSERVE_MAX_NESTING" in error.hint


# -- structure --------------------------------------------------------------------------------


def test_headings_lists_and_tables_of_a_page_survive(pool: ExtractorPool, tmp_path: Path) -> None:
    page = tmp_path / "a.html"
    page.write_text(
        "<h1>Top</h1><p>Words.</p><h2>Sub</h2><ul><li>one</li><li>two</li></ul>"
        "<table><tr><th>name</th><th>value</th></tr><tr><td>a</td><td>1</td></tr></table>"
        "<pre><code>x = 1\n\ny = 2</code></pre>"
    )
    text = pool.extract(page, tmp_path).text
    lines = [" ".join(line.split()) for line in text.splitlines()]
    for line in ("# Top", "## Sub", "- one", "- two", "| name | value |", "| a | 1 |", "x = 1"):
        assert line in lines


def test_csv_is_a_table_with_its_column_names(pool: ExtractorPool, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('name,note\nfirst,"two\nlines"\nsecond,x\n')
    found = pool.extract(tmp_path / "a.csv", tmp_path)
    assert found.text.startswith("| name | note |\n| --- | --- |\n| first | two")
    assert found.text.endswith("| second | x |")


def test_a_document_of_rules_alone_has_no_text(pool: ExtractorPool, tmp_path: Path) -> None:
    assert refused(pool, tmp_path, "a.md", "-----\n\n* * *\n").code == "no_text"


# -- OCR --------------------------------------------------------------------------------------


def tessdata() -> Path:
    places = [os.environ.get("TESSDATA_PREFIX", ""), *FOLDERS]
    found = [Path(place) for place in places if place]
    found = [place for place in found if (place / "eng.traineddata").exists()]
    if not found:
        pytest.skip("NO OCR: Tesseract's `eng.traineddata` is not installed")
    return found[0]


@pytest.mark.data
def test_a_scanned_page_is_read_by_ocr_inside_the_jail(data: Path) -> None:
    folder = tessdata()
    pool = ExtractorPool(1, ExtractLimits(ocr_languages="eng", tessdata=str(folder)))
    try:
        held = pool.protections()
        found = pool.extract(data / "docs-tika/files/testOCR.pdf", data)
        assert found.text == "Happy New Year 2003!"
        assert "OCR" in found.warnings[0]
        assert [page.number for page in found.pages] == [1]
        picture = pool.extract(data / "docs-markitdown/files/test_llm.jpg", data)
        assert "5bda1dd6" in picture.text
        assert pool.protections() == held
    finally:
        pool.close()


def test_a_language_that_is_not_installed_stops_the_start(tmp_path: Path) -> None:
    (tmp_path / "eng.traineddata").touch()
    assert language_folder("", None) == ""
    assert language_folder("eng", tmp_path) == str(tmp_path)
    with pytest.raises(StartupError, match=r"deu\.traineddata.*EMBEDSERVE_TESSDATA"):
        language_folder("eng+deu", tmp_path)
