"""Text from before Unicode."""

import pytest

from embedserve.ingest import decode

SENTENCES = {
    "Немедленно замолчите, прошу вас. Я здесь по делу, Иван Петрович.": (
        ["cp1251", "koi8-r", "cp866", "iso8859-5"]
    ),
    "Zażółć gęślą jaźń, proszę państwa. Dziękuję bardzo.": ["cp1250", "iso8859-2"],
    "Größe und Straße, schöne Grüße aus München": ["cp1252", "cp850", "mac-roman"],
    "À l'été, l'élève français préfère le café crème": ["cp1252"],
    "El niño comió la piña en el año nuevo. ¿Qué tal?": ["cp1252"],
    "Işık ve gölge, şöyle böyle çalışıyor, ağaçların altında": ["cp1254"],  # noqa: RUF001
    "Η γρήγορη αλεπού πηδάει πάνω από το σκυλί": ["cp1253", "iso8859-7"],  # noqa: RUF001
    "مرحبا بالعالم هذا اختبار للترميز": ["cp1256"],
    "สวัสดีชาวโลก นี่คือการทดสอบ": ["cp874"],
    "これはテストです。日本語の文章を読みます。漢字も多い。": ["cp932", "euc_jp"],
    "这是一个测试文件,用来检验编码。人民日报今日头条": ["gb18030"],
    "這是一個測試文件,用來檢驗編碼。歡迎來到臺灣": ["big5"],
    "이것은 시험 문서입니다. 한국어 문장을 읽습니다.": ["cp949"],
    "Plain words of a mainframe, as it wrote them on tape.": ["cp500"],
}


@pytest.mark.parametrize(
    ("text", "encoding"),
    [(text, encoding) for text, encodings in SENTENCES.items() for encoding in encodings],
)
def test_an_encoding_is_told_by_its_letters_and_named(text: str, encoding: str) -> None:
    decoded = decode.decode(text.encode(encoding))
    assert decoded is not None
    assert decoded.text == text
    assert "guess" in decoded.warnings[0]


def test_a_page_that_says_utf_8_and_is_not_is_guessed() -> None:
    page = '<meta charset="utf-8"><p>' + next(iter(SENTENCES)) + "</p>"
    decoded = decode.decode(page.encode("cp1251"), is_markup=True)
    assert decoded is not None
    assert decoded.text == page


def test_bytes_that_are_no_text_are_not_guessed() -> None:
    assert decode.decode(bytes(range(256)) * 20) is None
    assert decode.decode(bytes(range(128, 256)) * 20 + bytes(range(8)) * 200) is None
