"""Cuts and places that follow from what a text is: tables, code, titles, members of archives."""

from bisect import bisect_right

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedserve.ingest.chunk import chunk, prefix
from embedserve.ingest.layouts import LAYOUTS
from embedserve.ingest.outline import definitions
from embedserve.ingest.rst import rst_sections
from embedserve.types import MemberSpan
from tests.test_ingest_chunk import PIECES, check, cut, real_offsets

# -- tables -----------------------------------------------------------------------------------


def table(rows: int, words: int) -> str:
    filler = "some words " * words
    body = "".join(f"| row {number} | {filler}|\n" for number in range(rows))
    return "| name | value |\n| --- | --- |\n" + body


@pytest.mark.parametrize("words", [1, 5, 20, 45])
def test_a_row_that_fits_is_never_cut(words: int) -> None:
    text = "Words before it.\n\n" + table(30, words) + "\nWords after it."
    rows = [line for line in text.splitlines() if line.startswith("| row")]
    chunks = cut(text)
    assert len(chunks) > 1
    for row in rows:
        assert sum(row in one.text for one in chunks) == 1, row


def test_chunks_of_a_table_carry_its_column_names() -> None:
    first, *rest = cut("# Prices\n\n" + table(40, 5))
    assert first.heading == ("Prices",)
    assert {one.heading for one in rest} == {("Prices", "| name | value |")}
    assert prefix("Book", rest[0].heading) == "Book > Prices\n\n| name | value |\n"
    lines = "".join(f"| line {number} |\n" for number in range(60))
    assert {one.heading for one in cut(lines)} == {()}  # a line block, without names


def test_a_row_too_long_is_cut_between_cells() -> None:
    row = "| " + " | ".join(f"cell {number} with words" for number in range(60)) + " |\n"
    rule = "| " + "- | " * 60 + "\n"
    for one in cut(row + rule.replace("- ", "--- ") + row)[1:]:
        assert one.text.startswith(("cell", "|", "--- ")), one.text[:40]


def test_json_lines_are_cut_between_records() -> None:
    records = [f'{{"id": {number}, "text": "{"word " * 25}"}}' for number in range(20)]
    chunks = cut("\n".join(records), "rows")
    assert [line for one in chunks for line in one.text.split("\n")] == records


# -- code -------------------------------------------------------------------------------------

PYTHON = '''import os

LIMIT = 3


# Why this is here.
@decorated
class First(Base):
    """Words."""

    def method(self, one):
        if one:
            return call(one)

    async def other(self) -> None:
        pass


def last():
    return 1
'''
RUST = """use std::fs;

/// Says so.
#[derive(Debug)]
pub struct Point {
    x: i32,
}

impl Point {
    pub(crate) fn new(x: i32) -> Self {
        Self { x }
    }
}

fn main() {
    println!("{}", 1);
}
"""
JAVA = """package a.b;

public class Cat extends Animal {
    private int lives = 9;

    @Override
    public String name(int a, List<String> b) {
        if (a > 1) {
            return call(a);
        }
        return "cat";
    }
}
"""
C = """#include <stdio.h>

static int add(int a, int b)
{
    return a + b;
}

int main(void) {
    printf("%d", add(1, 2));
}
"""
TYPESCRIPT = """import { a } from "b";

export const load = async (path: string) => {
  return a(path);
};

export default class Store {
  read(key: string): string {
    return key;
  }
}
"""
GO = """package main

func (s *Server) Run(ctx context.Context) error {
	return nil
}

type Server struct {
	name string
}
"""
RUBY = """module A
  class B
    def run(x)
      puts x
    end
  end
end
"""
SHELL = """set -e

build() {
  make
}

function clean {
  rm -r out
}
"""


@pytest.mark.parametrize(
    ("code", "names"),
    [
        (PYTHON, ["First", "method", "other", "last"]),
        (RUST, ["Point", "Point", "new", "main"]),
        (JAVA, ["Cat", "name"]),
        (C, ["add", "main"]),
        (TYPESCRIPT, ["load", "Store", "read"]),
        (GO, ["Run", "Server"]),
        (RUBY, ["A", "B", "run"]),
        (SHELL, ["build", "clean"]),
    ],
    ids=["python", "rust", "java", "c", "typescript", "go", "ruby", "shell"],
)
def test_definitions_are_found_in_many_languages(code: str, names: list[str]) -> None:
    found = definitions(code)
    assert len(found) == len(names), [one.title for one in found]
    for one, name in zip(found, names, strict=True):
        assert name in one.title
        assert name in code[one.start : one.end]


def test_a_definition_takes_in_what_stands_right_above_and_all_that_is_below() -> None:
    first = definitions(PYTHON)[0]
    assert PYTHON[first.start : first.end].startswith("# Why this is here.\n@decorated")
    assert PYTHON[first.start : first.end].endswith("pass\n")


def test_a_piece_of_a_long_method_names_what_it_lies_in() -> None:
    lines = "".join(f"        value_{number} = call({number})\n" for number in range(60))
    chunks = cut(
        f"class Big:\n    def long(self):\n{lines}\n    def next(self):\n        pass\n", "code"
    )
    methods = "    def one(self):\n        pass\n\n" * 60
    starts = [one.heading for one in cut("class Big:\n" + methods, "code")[1:]]
    assert set(starts) == {("class Big",)}
    assert chunks[0].heading == ()
    assert chunks[1].heading == ("class Big", "def long(self)")
    assert chunks[-1].heading[0] == "class Big"


def test_calls_and_imports_are_no_definitions() -> None:
    code = "from a import (\n    b,\n)\n\nb.start()\nstop()\nmain(1)\nif (x) {\n}\nreturn f(x)\n"
    assert definitions(code) == []


def test_a_function_that_fits_is_not_cut() -> None:
    functions = [
        f"def f{number}(a):\n" + "    b = a\n\n" * (4 + number % 3 * 6) + "    return b"
        for number in range(12)
    ]
    chunks = cut("\n".join(functions), "code")
    for function in functions:
        assert sum(function in one.text for one in chunks) == 1


# -- titles -----------------------------------------------------------------------------------


def test_titles_of_restructuredtext_form_a_path() -> None:
    text = (
        "====\nBook\n====\n\nWords.\n\nChapter\n=======\n\nFirst::\n\n   # no title\n   ====\n\n"
        "Part\n~~~~\n\nMore.\n\nNext\n====\n\nEnd.\n"
    )
    paths = [section.heading for section in rst_sections(text)]
    assert paths == [("Book",), ("Book", "Chapter"), ("Book", "Chapter", "Part"), ("Book", "Next")]


# -- members ----------------------------------------------------------------------------------


def test_members_are_cut_by_their_own_kind_below_their_names() -> None:
    code = "# a.py\n\n" + "def f():\n    # no title\n    return 1\n" * 30
    notes = "# notes.md\n\n# Title\n\nWords of it."
    text = f"{code}\n{notes}"
    members = [
        MemberSpan("a.py", "code", 0, len(code)),
        MemberSpan("notes.md", "markdown", len(code) + 1, len(text)),
    ]
    chunks = chunk(text, "markdown", (), real_offsets, members=members)
    assert "".join("".join(one.text.split()) for one in chunks) == "".join(text.split())
    assert {one.heading[0] for one in chunks[:-1]} == {"a.py"}
    assert chunks[-1].heading == ("notes.md", "Title")
    assert chunks[-1].text == notes


@given(
    st.lists(
        st.tuples(st.sampled_from(sorted(LAYOUTS)), st.lists(PIECES, max_size=12).map("".join)),
        min_size=1,
        max_size=5,
    )
)
@settings(max_examples=100, deadline=None)
def test_members_of_any_kind_are_covered_exactly(parts: list[tuple[str, str]]) -> None:
    text = "Own words.\n\n"
    members: list[MemberSpan] = []
    for number, (kind, piece) in enumerate(parts):
        start = len(text)
        text += f"# member {number}\n\n{piece}"
        members.append(MemberSpan(f"member {number}", kind, start, len(text)))
        text += "\n\n"
    chunks = chunk(text, "text", (), real_offsets, max_tokens=16, members=members)
    check(text, chunks, 16)
    starts = [one.start for one in members]
    for one in chunks:
        place = bisect_right(starts, one.start) - 1
        assert (one.heading[0] if place >= 0 else "") == (members[place].name if place >= 0 else "")
