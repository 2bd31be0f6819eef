"""Links: who is given signed ones, what these open, and for how long."""

import json
from collections.abc import Callable
from dataclasses import replace

import pytest

from embedserve.services.document_links import DocumentLinks, LinkedDocument, id_in
from embedserve.services.viewing import NOBODY, OWNER, Viewer, acting_as
from embedserve.types import Index

NOW, LASTING_S = 1_800_000_000, 3600
ANN = Viewer(claims={"email": "ann@x.example"})
RULES = {"access": {"rules": [{"claim": "email", "field": "owner"}]}}
OTHER_RULES = {"access": {"rules": [{"claim": "email", "field": "editor"}]}}
PROTECTED = Index(1, "vault", json.dumps(RULES), "m", "a", 8, "", 1)
OPEN = replace(PROTECTED, definition="{}")
DOCUMENT = LinkedDocument(7, PROTECTED, "/d/a.md", "ab" * 32, '{"owner": "ann@x.example"}')


def links_at(now: float = NOW, *, key: bytes = b"key", signed_s: int = LASTING_S) -> DocumentLinks:
    return DocumentLinks(key, signed_s=signed_s, now=lambda: now)


def signature(document: LinkedDocument = DOCUMENT, viewer: Viewer = ANN) -> str:
    with acting_as(viewer):
        return links_at().page(document).partition("signed=")[2]


@pytest.mark.parametrize(
    ("viewer", "index", "signed_s", "is_signed"),
    [
        (ANN, PROTECTED, LASTING_S, True),
        (OWNER, PROTECTED, LASTING_S, True),
        (NOBODY, PROTECTED, LASTING_S, False),
        (Viewer(may_change=True), PROTECTED, LASTING_S, False),
        (ANN, OPEN, LASTING_S, False),
        (ANN, PROTECTED, 0, False),
    ],
)
def test_links_are_signed_for_the_proven_and_where_there_are_rules(
    viewer: Viewer, index: Index, signed_s: int, is_signed: bool
) -> None:
    links, document = links_at(signed_s=signed_s), replace(DOCUMENT, index=index)
    with acting_as(viewer):
        page, passage = links.page(document), links.passage(document, 3, 9)
    assert ("signed=" in page) == ("signed=" in passage) == is_signed
    assert page.partition("?")[0] == f"/d/{links.token(document)}"
    assert "?v=abababab" in passage
    assert passage.endswith("#chars=3-9")


def test_a_signature_opens_its_document_until_its_time_is_over() -> None:
    signed = signature()
    for later, holds in ((0, True), (LASTING_S - 1, True), (LASTING_S, False), (10**8, False)):
        assert links_at(NOW + later).is_opened(DOCUMENT, signed) == holds


CHANGES: dict[str, Callable[[LinkedDocument], LinkedDocument]] = {
    "another document": lambda one: replace(one, id=8),
    "another path": lambda one: replace(one, path="/d/b.md"),
    "another version": lambda one: replace(one, sha256="cd" * 32),
    "other metadata": lambda one: replace(one, metadata='{"owner": "bob@x.example"}'),
    "another index": lambda one: replace(one, index=replace(PROTECTED, id=2)),
    "other rules": lambda one: replace(
        one, index=replace(PROTECTED, definition=json.dumps(OTHER_RULES))
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_signature_opens_nothing_else(change: str) -> None:
    signed, other = signature(), CHANGES[change](DOCUMENT)
    assert links_at().is_opened(DOCUMENT, signed)
    assert not links_at().is_opened(other, signed)
    assert links_at().is_opened(other, signature(other))


def test_a_forged_signature_opens_nothing() -> None:
    signed = signature()
    until, _, code = signed.partition("-")
    forged = [
        signed[:at] + ("0" if signed[at] != "0" else "1") + signed[at + 1 :]
        for at in range(5, len(signed))
    ]
    forged += [f"{int(until) + 1}-{code}", f"{int(until) - 1}-{code}", f"{until}-{'0' * 32}"]
    forged += ["", "-", code, until, f"{until}-", f" {signed}", f"{signed}\n", signed.upper() + "A"]
    forged += [signed.replace("1", "\u0661"), f"{'9' * 5000}-{code}"]
    assert not [one for one in forged if links_at().is_opened(DOCUMENT, one)]
    assert not links_at(key=b"another").is_opened(DOCUMENT, signed)


def test_whose_token_is_shown_is_judged_by_the_rules_alone() -> None:
    signed = signature()
    with acting_as(Viewer(claims={"email": "bob@x.example"})):
        assert not links_at().is_opened(DOCUMENT, signed)


def test_a_shorter_time_counts_for_links_that_were_given_before() -> None:
    signed = signature()
    assert not links_at(signed_s=60).is_opened(DOCUMENT, signed)
    assert not links_at(signed_s=0).is_opened(DOCUMENT, signed)
    assert links_at(NOW + LASTING_S - 60, signed_s=60).is_opened(DOCUMENT, signed)


def test_what_names_a_document_is_no_signature() -> None:
    token = links_at().token(DOCUMENT)
    assert id_in(token) == 7
    assert links_at().is_named(DOCUMENT, token)
    assert id_in(signature()) is None
