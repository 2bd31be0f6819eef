import pytest

from embedserve.errors import InvalidNameError
from embedserve.models.library import LIBRARY, find_known, spellings
from embedserve.models.names import parse_name


@pytest.mark.parametrize(
    ("text", "display"),
    [
        ("all-minilm", "all-minilm:latest"),
        ("all-minilm:22m", "all-minilm:22m"),
        ("  all-minilm  ", "all-minilm:latest"),
        ("library/all-minilm", "all-minilm:latest"),
        ("registry.ollama.ai/library/all-minilm:latest", "all-minilm:latest"),
        ("https://registry.ollama.ai/library/all-minilm", "all-minilm:latest"),
        ("user/m:tag", "user/m:tag"),
        ("hf.co/org/repo", "hf.co/org/repo:latest"),
        ("huggingface.co/org/Repo.v1:Q8_0", "hf.co/org/Repo.v1:Q8_0"),
        ("localhost:5000/ns/model", "localhost:5000/ns/model:latest"),
        ("_why/_the/_lucky:_stiff", "_why/_the/_lucky:_stiff"),
        ("host:https/namespace/model:tag", "host:https/namespace/model:tag"),
        ("a" * 80 + ":" + "b" * 80, "a" * 80 + ":" + "b" * 80),
    ],
)
def test_name_is_read_with_its_defaults(text: str, display: str) -> None:
    assert parse_name(text).display == display
    assert parse_name(display) == parse_name(text)


@pytest.mark.parametrize(
    "text",
    [
        *("", " ", "mm:", ":tag", "//mm", "/nn/mm", "hh//", "a/b/c/d", "^", "@t", "m@sha256", "-m"),
        *(
            "m:-t",
            "n.s/m",
            "host/name:space/model:tag",
            "..",
            "../../etc",
            "a b",
            "modèle",
            "m\n:t",
        ),
        "a" * 81,
        "m:" + "t" * 81,
        "m\x00",
    ],
)
def test_name_outside_the_grammar_is_refused(text: str) -> None:
    with pytest.raises(InvalidNameError, match=r"^invalid model name$"):
        parse_name(text)


def test_names_compare_without_regard_to_case() -> None:
    assert parse_name("ALL-MiniLM:Latest").key == parse_name("all-minilm").key
    assert parse_name("ALL-MiniLM").display == "ALL-MiniLM:latest"


@pytest.mark.parametrize(
    "text",
    [
        *("all-minilm", "ALL-MINILM:L6-v2", "all-minilm:22m"),
        "hf.co/sentence-transformers/all-MiniLM-L6-v2",
    ],
)
def test_every_alias_finds_its_row(text: str) -> None:
    assert find_known(parse_name(text)) is LIBRARY[0]


@pytest.mark.parametrize("text", ["all-minilm:33m", "me/all-minilm", "nothing", "hf.co/o/r"])
def test_other_names_find_no_row(text: str) -> None:
    assert find_known(parse_name(text)) is None


def test_spellings_lead_back_to_their_row() -> None:
    for row in LIBRARY:
        assert all(find_known(name) is row for name in spellings(row))
