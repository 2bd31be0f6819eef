"""Extraction of real documents: one of each format, and what becomes of hard ones."""

import tomllib
from pathlib import Path

import docx
import pytest

from embedserve.errors import ExtractionError
from embedserve.ingest.extract import ExtractorPool

EXPECTED = Path(__file__).parent / "expected_documents.toml"
DATA = Path(__file__).parents[2] / "shared/data"


def documents(name: str) -> Path:
    folder = DATA / name / "files"
    if not folder.exists():
        pytest.skip(f"no documents at {folder}")
    return folder


def outcome(pool: ExtractorPool, path: Path, root: Path) -> str:
    try:
        pool.extract(path, root)
    except ExtractionError as error:
        return error.code
    return "text"


@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("test.pdf", "Large language models"),
        ("test.docx", "AutoGen is an open-source framework"),
        ("test.pptx", "AutoGen is an open-source framework"),
        ("test.xlsx", "| 89 | 82 | 100 | 12 |"),
        ("test.xls", "| 89 | 82 | 100 | 12 |"),
        ("test.epub", "This is a **test** paragraph"),
        ("test_blog.html", "Large language models (LLMs) are powerful tools"),
        ("test_outlook_msg.msg", "This is the body of the test email message"),
        ("test_notebook.ipynb", 'print("markitdown")'),
        ("test_mskanji.csv", "佐藤太郎"),
        ("test_rss.xml", "title: The Official Microsoft Blog"),
        ("test.json", "5b64c88c-b3c3-4510-bcb8-da0b200602d8"),
    ],
)
def test_each_format_gives_its_words(pool: ExtractorPool, name: str, words: str) -> None:
    root = documents("docs-markitdown")
    assert words in pool.extract(root / name, root).text


@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "pages", "words"),
    [
        ("REPAIR-2022-INV-001_multipage.pdf", [1, 2, 3], {2: "Bruce Wayne", 1: "Gabriel Diaz"}),
        ("test.pptx", [1, 2, 3, 4, 5, 6], {2: "AutoGen is an open-source framework"}),
    ],
)
def test_pages_are_spans_of_the_text(
    pool: ExtractorPool, name: str, pages: list[int], words: dict[int, str]
) -> None:
    root = documents("docs-markitdown")
    found = pool.extract(root / name, root)
    assert [page.number for page in found.pages] == pages
    for page in found.pages:
        assert words.get(page.number, "") in found.text[page.start : page.end]


@pytest.mark.data
def test_every_file_of_a_mixed_folder_ends_as_expected(pool: ExtractorPool) -> None:
    root = documents("docs-markitdown")
    expected = tomllib.loads(EXPECTED.read_text(encoding="utf-8"))["docs-markitdown"]
    paths = [path for path in root.rglob("*") if path.is_file()]
    ends = {str(path.relative_to(root)): outcome(pool, path, root) for path in paths}
    assert ends == dict.fromkeys(ends, "text") | expected


@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "members"),
    [
        ("testMSG_att_doc.msg", ["test-unicode.doc", "pj1.txt"]),
        ("testPDFPackage.pdf", ["PDF1.pdf", "PDF2.pdf"]),
        ("testWPSAttachment.pptx", ["Document2.docx", "Presentation2.pptx", "Workbook2.xlsx"]),
    ],
)
def test_what_is_embedded_is_read(pool: ExtractorPool, name: str, members: list[str]) -> None:
    root = documents("docs-tika")
    assert [one.name for one in pool.extract(root / name, root).members] == members


def test_a_word_document_gives_headings(pool: ExtractorPool, tmp_path: Path) -> None:
    document = docx.Document()
    document.add_heading("First part", 1)
    document.add_paragraph("Body text.")
    document.save(str(tmp_path / "a.docx"))
    found = pool.extract(tmp_path / "a.docx", tmp_path)
    assert found.text.endswith("# First part\n\nBody text.")
    assert found.kind == "markdown"


# -- refusals ---------------------------------------------------------------------------------
