"""Text that stands beside the running text: boxes, frames, notes, drawings, forms."""

import io
import zipfile
from pathlib import Path
from xml.etree import ElementTree

import pytest

from embedserve.errors import ExtractionError
from embedserve.ingest.boxes import with_boxes_moved
from embedserve.ingest.drawings import drawn_lines
from embedserve.ingest.extract import ExtractorPool
from embedserve.ingest.kinds import FileKind
from embedserve.ingest.odt import read_odt
from tests.office_samples import docx, odt, pdf_form
from tests.test_ingest_documents import documents

OLD = "<w:r><w:pict><v:shape><v:textbox>{}</v:textbox></v:shape></w:pict></w:r>"


def paragraph(*runs: str) -> str:
    inside = "".join(run if run.startswith("<") else f"<w:r><w:t>{run}</w:t></w:r>" for run in runs)
    return f"<w:p>{inside}</w:p>"


def box(*paragraphs: str) -> str:
    return f"<w:txbxContent>{''.join(paragraphs)}</w:txbxContent>"


def twice(content: str) -> str:
    """Give a box as Word stores it: as a drawing, and again for older programs."""
    choice = f'<mc:Choice Requires="wps"><w:drawing a=">">{content}</w:drawing></mc:Choice>'
    fallback = f"<mc:Fallback><w:pict>{content}</w:pict></mc:Fallback>"
    return f"<w:r><mc:AlternateContent>{choice}{fallback}</mc:AlternateContent></w:r>"


def extracted(pool: ExtractorPool, folder: Path, name: str, content: bytes) -> str:
    (folder / name).write_bytes(content)
    return pool.extract(folder / name, folder).text


def test_text_boxes_of_word_stand_behind_their_paragraph_once(
    pool: ExtractorPool, tmp_path: Path
) -> None:
    inner = paragraph("within", OLD.format(box(paragraph("innermost"))))
    body = paragraph("Before", twice(box(paragraph("modern one"), paragraph("modern two"))), "rest")
    body += paragraph("Old", OLD.format(box(inner, paragraph("last"))))
    body += (
        f"<w:tbl><w:tr><w:tc>{paragraph('cell', twice(box(paragraph('in cell'))))}</w:tc></w:tr>"
    )
    text = extracted(pool, tmp_path, "a.docx", docx(body + "</w:tbl>" + paragraph("After")))
    words = [
        *("Beforerest", "modern", "one", "modern", "two", "Old", "within", "innermost", "last"),
        *("cell", "in", "cell", "After"),
    ]
    assert [word for word in text.split() if word.isalpha()] == words


def test_what_was_declared_around_a_box_is_declared_for_it() -> None:
    shape = '<v:x xmlns:z="urn:z"><w:r/>{}</v:x>'
    body = paragraph("a", shape.format(box(paragraph('<z:mark z:k="1"/>', "boxed"))))
    with zipfile.ZipFile(io.BytesIO(with_boxes_moved(docx(body)))) as archive:
        moved = ElementTree.fromstring(archive.read("word/document.xml"))
    assert [one.text for one in moved.iterfind("./*/*/{*}r/{*}t")] == ["a", "boxed"]
    assert moved.find("./*/*[2]/{urn:z}mark") is not None


@pytest.mark.parametrize(
    "content",
    [
        docx(paragraph("no box at all")),
        docx(paragraph(box(paragraph("&e;"))), head='<!DOCTYPE w [<!ENTITY e "x">]>'),
        docx(paragraph(box("<w:p>"))),
        docx("").replace(b"PK\x01\x02", b"PK\x01\x03"),
        b"PK\x03\x04 txbxContent",
    ],
    ids=["no box", "entities", "not well-formed", "damaged", "no archive"],
)
def test_what_has_no_boxes_to_move_stays_as_it_is(content: bytes) -> None:
    assert with_boxes_moved(content) == content


def test_words_in_charts_and_diagrams_are_read(pool: ExtractorPool, tmp_path: Path) -> None:
    names = (
        'xmlns:a="http://schemas.openxmlformats.org/drawingml/2006/main"'
        ' xmlns:c="http://schemas.openxmlformats.org/drawingml/2006/chart"'
    )
    title = "<a:p><a:r><a:t>Peaches </a:t></a:r><a:r><a:t>sold</a:t></a:r></a:p>"
    cache = "<c:strCache><c:pt><c:v>May</c:v></c:pt><c:pt><c:v>June</c:v></c:pt></c:strCache>"
    chart = f"<c:chart {names}>{title}{cache}<c:numCache><c:v>7</c:v></c:numCache></c:chart>"
    parts = {f"word/charts/chart{n}.xml": chart.replace("May", f"May {n}") for n in (10, 9)}
    content = docx(paragraph("Sales in June"), {**parts, "word/diagrams/data1.xml": "<broken"})
    assert drawn_lines(content) == ["Peaches sold", "May 9", "June", "May 10"]
    text = extracted(pool, tmp_path, "a.docx", content)
    assert text.split("\n\n") == ["Sales in June", "Peaches sold", "May 9", "May 10"]


# -- OpenDocument -----------------------------------------------------------------------------


def odt_text(body: str, styles: str = "") -> str:
    return read_odt(odt(body, styles), FileKind("odt", "markdown")).pages[0].text


def frame(words: str) -> str:
    return f"<draw:frame><draw:text-box><text:p>{words}</text:p></draw:text-box></draw:frame>"


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ('<text:h text:outline-level="2">A <text:span>b</text:span></text:h>', "## A b"),
        (f"<text:p>one {frame('boxed')}two</text:p>", "one two\n\nboxed"),
        (f"{frame('at the page')}<text:p>one</text:p>", "at the page\n\none"),
        ("<text:p>a<text:s text:c='2'/>b<text:tab/>c\n d<text:line-break/>e</text:p>",
         "a  b\tc d\ne"),
        ("<text:p>x<text:note><text:note-citation>1</text:note-citation><text:note-body>"
         "<text:p>noted</text:p></text:note-body></text:note>y</text:p>", "xy\n\nnoted"),
        ("<text:list><text:list-item><text:p>one</text:p><text:list><text:list-item>"
         "<text:p>deep</text:p></text:list-item></text:list></text:list-item><text:list-item>"
         "<text:p>two</text:p></text:list-item></text:list>", "- one\n  - deep\n- two"),
        ("<text:list><text:list-item><text:h>Numbered</text:h></text:list-item></text:list>",
         "# Numbered"),
        ("<table:table><table:table-header-rows><table:table-row><table:table-cell>"
         "<text:p>a</text:p><text:p>b|c</text:p></table:table-cell><table:table-cell"
         " table:number-columns-repeated='900'/></table:table-row></table:table-header-rows>"
         f"<table:table-row><table:table-cell><text:p>d{frame('e')}</text:p></table:table-cell>"
         "</table:table-row></table:table>", "| a b\\|c |\n| --- |\n| d e |"),
        ("<text:tracked-changes><text:p>deleted</text:p></text:tracked-changes>"
         "<text:section><text:p>kept</text:p></text:section>", "kept"),
        ("<text:p><draw:a><draw:frame><svg:title>Logo</svg:title></draw:frame></draw:a></text:p>",
         "Logo"),
    ],
)  # fmt: skip
def test_an_opendocument_text_gives_its_words(body: str, text: str) -> None:
    assert odt_text(body) == text


def test_headers_and_footers_stand_once() -> None:
    page = "<style:header><text:p>Head</text:p></style:header><style:footer><text:p>Foot</text:p>"
    styles = f"<style:x>{page}</style:footer></style:x>" * 2
    assert odt_text("<text:p>one</text:p>", styles) == "Head\n\none\n\nFoot"


def test_a_damaged_opendocument_text_says_so() -> None:
    with pytest.raises(ExtractionError) as caught:
        read_odt(b"PK no archive", FileKind("odt", "markdown"))
    assert caught.value.code == "corrupt"


# -- PDF forms --------------------------------------------------------------------------------


def test_what_was_filled_into_a_form_is_read(pool: ExtractorPool, tmp_path: Path) -> None:
    fields = [
        "/FT/Tx/T(name)/TU(Full name)/V(Ada Lovelace)",
        "/FT/Ch/T(country)/V[(Norway)(Sweden)]",
        "/FT/Btn/T(agreed)/V/Yes",
        "/FT/Btn/T(declined)/V/Off",
        "/FT/Tx/Ff 8192/T(secret)/V(password)",
        "/FT/Sig/T(signature)",
        "/FT/Tx/T(empty)/V()",
        "/FT/Tx/T(note)/V<FEFF00FC00620065>",
    ]
    (tmp_path / "a.pdf").write_bytes(pdf_form(fields))
    found = pool.extract(tmp_path / "a.pdf", tmp_path)
    assert found.text.split("\n\n") == [
        *("Application form", "Full name: Ada Lovelace", "country: Norway, Sweden", "agreed: Yes"),
        "note: übe",
    ]
    assert [(page.number, page.end) for page in found.pages] == [(1, len(found.text))]
    assert found.warnings == ()


def test_a_form_that_cannot_be_read_is_said(pool: ExtractorPool, tmp_path: Path) -> None:
    (tmp_path / "a.pdf").write_bytes(pdf_form(["/FT/Tx/T(name)/V(Ada)/Ff/No"]))
    found = pool.extract(tmp_path / "a.pdf", tmp_path)
    assert found.text == "Application form"
    assert found.warnings == ("What was filled into its form could not be read.",)


@pytest.mark.data
def test_a_real_form_gives_what_was_filled_in(pool: ExtractorPool) -> None:
    root = documents("docs-tika")
    text = pool.extract(root / "testPDF_acroform3.pdf", root).text
    assert "aTextField: TIKA-1226" in text


@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("testWORD_text_box.docx", "This text is directly in the body of the document"),
        ("testODFwithOOo3.odt", "A rectangle"),
        ("testEXCEL_textbox.xlsx", "some autoshape text"),
        ("testPPT_diagramData.pptx", "VP - Marketing"),
    ],
)
def test_real_documents_give_what_stands_beside_their_text(
    pool: ExtractorPool, name: str, words: str
) -> None:
    root = documents("docs-tika")
    assert zipfile.is_zipfile(root / name)
    assert words in pool.extract(root / name, root).text
