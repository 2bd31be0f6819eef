import pytest

from embedserve.errors import InvalidNameError
from embedserve.models.names import RECIPES, parse_name, split_recipe


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
    ("tag", "base", "recipe"),
    [
        ("latest", "latest", None),
        ("22m", "22m", None),
        ("fp32", "latest", "fp32"),
        ("FP32", "latest", "fp32"),
        ("latest-bf16", "latest", "bf16"),
        ("22m-int8", "22m", "int8"),
        ("22m-int8-precise", "22m", "int8-precise"),
        ("int8-dynamic", "latest", "int8-dynamic"),
        ("l6-v2-fp16", "l6-v2", "fp16"),
        ("L6-v2-INT4", "L6-v2", "int4"),
        ("myint8", "myint8", None),
        ("int8-22m", "int8-22m", None),
        ("int8x", "int8x", None),
    ],
)
def test_precision_is_taken_off_the_end_of_a_tag(tag: str, base: str, recipe: str | None) -> None:
    assert split_recipe(tag) == (base, recipe)


def test_every_precision_is_found_behind_any_tag() -> None:
    for recipe in RECIPES:
        assert split_recipe(recipe) == ("latest", recipe)
        assert split_recipe(f"v1-{recipe}") == ("v1", recipe)
