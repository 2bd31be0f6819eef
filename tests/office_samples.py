"""Office documents and PDF forms as bytes, made of as little as readers accept."""

import io
import zipfile

_TYPES = "application/vnd.openxmlformats-package.relationships+xml"
_WORD = "application/vnd.openxmlformats-officedocument.wordprocessingml"
CONTENT_TYPES = (
    '<Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types">'
    f'<Default Extension="rels" ContentType="{_TYPES}"/>'
    '<Default Extension="xml" ContentType="application/xml"/>'
    f'<Override PartName="/word/document.xml" ContentType="{_WORD}.document.main+xml"/></Types>'
)
_DOCUMENT = "http://schemas.openxmlformats.org/officeDocument/2006/relationships/officeDocument"
RELATIONS = (
    '<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships">'
    f'<Relationship Id="r1" Type="{_DOCUMENT}" Target="word/document.xml"/></Relationships>'
)
WORD_NAMES = (
    'xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"'
    ' xmlns:mc="http://schemas.openxmlformats.org/markup-compatibility/2006"'
    ' xmlns:v="urn:schemas-microsoft-com:vml"'
)
ODF_NAMES = " ".join(
    f'xmlns:{short}="urn:oasis:names:tc:opendocument:xmlns:{name}:1.0"'
    for short, name in (
        *(("office", "office"), ("text", "text"), ("draw", "drawing"), ("table", "table")),
        *(("style", "style"), ("svg", "svg-compatible")),
    )
)


def _zipped(parts: dict[str, str]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, part in parts.items():
            archive.writestr(name, part)
    return file.getvalue()


def docx(body: str, parts: dict[str, str] | None = None, *, head: str = "") -> bytes:
    """Make a DOCX of what stands in its body, with further parts by name."""
    document = f"{head}<w:document {WORD_NAMES}><w:body>{body}</w:body></w:document>"
    first = {"[Content_Types].xml": CONTENT_TYPES, "_rels/.rels": RELATIONS}
    return _zipped({**first, "word/document.xml": document, **(parts or {})})


def odt(body: str, styles: str = "") -> bytes:
    """Make an ODT of what stands in its body and in the styles of its pages."""
    content = (
        f"<office:document-content {ODF_NAMES}><office:body><office:text>{body}"
        "</office:text></office:body></office:document-content>"
    )
    pages = f"<office:document-styles {ODF_NAMES}>{styles}</office:document-styles>"
    kind = "application/vnd.oasis.opendocument.text"
    return _zipped({"mimetype": kind, "content.xml": content, "styles.xml": pages})


def pdf_form(fields: list[str], *, words: str = "Application form") -> bytes:
    """Make a PDF of one page of words, with a form of such fields (dictionaries' insides)."""
    places = " ".join(f"{number} 0 R" for number in range(6, 6 + len(fields)))
    stream = f"BT /F1 12 Tf 50 350 Td ({words}) Tj ET"
    objects = [
        f"<</Type/Catalog/Pages 2 0 R/AcroForm<</Fields[{places}]>>>>",
        "<</Type/Pages/Kids[3 0 R]/Count 1>>",
        "<</Type/Page/Parent 2 0 R/MediaBox[0 0 400 400]/Contents 4 0 R"
        f"/Resources<</Font<</F1 5 0 R>>>>/Annots[{places}]>>",
        f"<</Length {len(stream)}>>stream\n{stream}\nendstream",
        "<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>",
        *(f"<</Type/Annot/Subtype/Widget/Rect[50 300 250 320]{field}>>" for field in fields),
    ]
    written, starts = b"%PDF-1.4\n", []
    for number, content in enumerate(objects, start=1):
        starts.append(len(written))
        written += f"{number} 0 obj\n{content}\nendobj\n".encode("latin-1")
    table = "".join(f"{start:010} 00000 n \n" for start in starts)
    size = len(objects) + 1
    end = f"xref\n0 {size}\n0000000000 65535 f \n{table}trailer<</Root 1 0 R/Size {size}>>\n"
    return written + f"{end}startxref\n{len(written)}\n%%EOF\n".encode()
