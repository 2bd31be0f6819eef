"""The sections of a text by its kind, and of the members of an archive each by their own."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from embedserve.ingest.blocks import Section, Table
from embedserve.ingest.layouts import sections_of
from embedserve.ingest.outline import Definition
from embedserve.ingest.spans import Span
from embedserve.types import MemberSpan


def sections(text: str, kind: str, members: Sequence[MemberSpan]) -> Iterator[Section]:
    """Yield the sections of a text in order; together they cover all but whitespace."""
    own = text[: members[0].start] if members else text
    for section in sections_of(own, kind) if own else ():
        yield replace(section, kind=kind)
    for member in members:
        yield from _member_sections(text, member)


def _member_sections(text: str, member: MemberSpan) -> Iterator[Section]:
    # The line with its name stays with its first section, as a heading does.
    body = text.find("\n", member.start, member.end) + 1 or member.end
    found = sections_of(text[body : member.end], member.kind)
    found = found or [Section(0, 0, member.end - body)]
    for number, section in enumerate(found):
        moved = _moved(section, body)
        start = member.start if number == 0 else moved.start
        heading = (member.name, *section.heading)
        yield replace(moved, start=start, heading=heading, kind=member.kind)


def _moved(section: Section, by: int) -> Section:
    return replace(
        section,
        start=section.start + by,
        body=section.body + by,
        end=section.end + by,
        whole=_moved_spans(section.whole, by),
        tables=tuple(Table(one.start + by, one.end + by, one.columns) for one in section.tables),
        outline=tuple(
            Definition(one.start + by, one.line + by, one.end + by, one.title)
            for one in section.outline
        ),
    )


def _moved_spans(spans: Sequence[Span], by: int) -> tuple[Span, ...]:
    return tuple(Span(span.start + by, span.end + by) for span in spans)
