"""Broken requests, made from right ones by a seeded source of chance."""

import json
import random
import string
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from scripts.fuzz_report.routes import ABSENT, CHANGING, MODEL, Route

HUGE = 10**400


Ending = Literal["whole", "open", "left"]
"""Whether a request is complete and must be answered, may wait for more, or its client leaves."""


@dataclass(frozen=True)
class Request:
    """One attack: what is sent, segment by segment."""

    kind: str
    route: Route
    segments: tuple[bytes, ...]
    pause_s: float = 0.0
    """Between the segments."""
    ending: Ending = "whole"


@dataclass
class Draft:
    """A right request, before something in it is broken."""

    method: str
    path: str
    headers: list[bytes] = field(default_factory=list)
    body: bytes = b""
    version: bytes = b"HTTP/1.1"

    def head(self, *, counts: bool = True) -> bytes:
        """Return the lines before the body."""
        first = self.method.encode() + b" " + self.path.encode() + b" " + self.version
        lines = [first, b"Host: 127.0.0.1", b"Connection: close", *self.headers]
        if counts and (self.body or self.method in ("POST", "PUT")):
            lines.append(b"Content-Length: %d" % len(self.body))
        return b"\r\n".join([*lines, b"", b""])

    def whole(self) -> bytes:
        """Return the request."""
        return self.head() + self.body


Break = Callable[[random.Random, Route], Request]


def draft(route: Route) -> Draft:
    """Return the right request of a route."""
    made = Draft(route.method, route.path)
    if route.body is not None:
        made.body = json.dumps(route.body).encode()
        made.headers.append(b"Content-Type: application/json")
    return made


def any_value(chance: random.Random) -> object:
    """Return a JSON value that most fields do not expect."""
    choices: list[object] = [
        None, True, -1, 0, 2**31, 2**63, -(2**63), HUGE, 1e308, -0.0, 0.1, "", " ", "a" * 5000,
        "\x00", "\ud800", "\u202e\u0000\uffff", "NaN", "1e999", "../../etc/passwd", "{{7*7}}",
        [], [[]], [None], [1, 2], [1.5], [["a"]], ["a", 1], [""] * 50, {}, {"": ""},
        {"model": {"model": {}}}, {"num_ctx": HUGE}, {"num_ctx": "x"}, {"num_ctx": -1},
        "hf.co/", ":", "a:b:c", "A" * 300, "all-minilm:\n", "-1h", "1e9h", "9" * 50, float("inf"),
        float("nan"),
    ]  # fmt: skip
    return chance.choice(choices)


def wrong_types(chance: random.Random, route: Route) -> Request:
    """Give one to three fields values of other types."""
    body = dict(route.body or {})
    for name in chance.sample(sorted(body), min(len(body), chance.randint(1, 3))):
        body[name] = any_value(chance)
    if not body or chance.random() < 0.1:
        body[chance.choice(["model", "x", "", "\x00", "__class__"])] = any_value(chance)
    return _with_body(route, "wrong types", json.dumps(body).encode())


def no_object(chance: random.Random, route: Route) -> Request:
    """Send some JSON that is no object, or nearly JSON."""
    bodies = [b"null", b"[]", b'"a"', b"1", b"true", b"", b" ", b"{", b"}", b'{"a"}', b'{"a":}',
              b"{'a':1}", b'{"a":1,}', b"\xef\xbb\xbf{}", b"{}{}", b"NaN", b"-", b'{"a":1e}',
              b'{"model":"a","model":"b"}', b"// {}", b"\x00", b'{"model":"\\u12"}']  # fmt: skip
    return _with_body(route, "no object", chance.choice(bodies))


def deep(chance: random.Random, route: Route) -> Request:
    """Nest arrays or objects deeply, closed or not."""
    depth = chance.choice([50, 500, 1024, 1025, 20_000, 200_000])
    opening, closing = chance.choice([(b"[", b"]"), (b'{"a":', b"}")])
    inner = opening * depth + b"1" + (closing * depth if chance.random() < 0.7 else b"")
    body = b'{"model": "all-minilm", "input": %s}' % inner
    return _with_body(route, "deep nesting", chance.choice([inner, body]))


def huge_numbers(chance: random.Random, route: Route) -> Request:
    """Write numbers that no machine has."""
    numbers = [b"1e999", b"-1e999", b"1" * 5000, b"0." + b"1" * 5000, b"1E+400", b"1e-999",
               b"9223372036854775808", b"18446744073709551616", b"-0", b"00", b"0x10"]  # fmt: skip
    number = chance.choice(numbers)
    fields = [b"dimensions", b"keep_alive", b"truncate", b"input", b"k", b"model", b"prompt"]
    body = b'{"model": "all-minilm", "input": "a", "%s": %s}' % (chance.choice(fields), number)
    return _with_body(route, "huge numbers", body)


def bad_text(chance: random.Random, route: Route) -> Request:
    """Put bytes that are no UTF-8, or lone halves of pairs, into strings."""
    parts = [b"\xff", b"\xc0\x80", b"\xed\xa0\x80", b"\xf8\x88\x80\x80\x80", b"\\ud800", b"\\udfff",
             b"\\u0000", b"\x80", b"\xe2\x82", b"\x00", b"\x1f", b"\\x41"]  # fmt: skip
    body = b'{"model": "all-minilm", "input": ["a%sb"], "prompt": "%s", "query": "%s"}'
    return _with_body(route, "bad text", body % tuple(chance.choice(parts) for _ in range(3)))


def flipped_bytes(chance: random.Random, route: Route) -> Request:
    """Change, drop or double some bytes of a right request."""
    sent = bytearray(draft(route).whole())
    for _ in range(chance.randint(1, 8)):
        place = chance.randrange(len(sent))
        match chance.randrange(3):
            case 0:
                sent[place] = chance.randrange(256)
            case 1:
                del sent[place]
            case _:
                sent[place:place] = sent[place : place + chance.randint(1, 20)]
    return Request("flipped bytes", route, (bytes(sent),), ending="open")


def cut_body(chance: random.Random, route: Route) -> Request:
    """Announce more than is sent, and leave."""
    whole = draft(replace(route, body=route.body or {"a": 1})).whole()
    return Request("cut", route, (whole[: chance.randrange(1, len(whole))],), ending="left")


def slow_body(chance: random.Random, route: Route) -> Request:
    """Send a right request in a few slow pieces."""
    whole = draft(replace(route, body=route.body or {"a": 1})).whole()
    places = sorted(chance.sample(range(1, len(whole)), 4))
    pieces = [
        whole[begin:end] for begin, end in zip([0, *places], [*places, len(whole)], strict=True)
    ]
    return Request("slow", route, tuple(pieces), pause_s=0.05)


def bad_headers(chance: random.Random, route: Route) -> Request:
    """Break the header section."""
    made = draft(route)
    word = bytes(chance.choice(string.printable.encode()) for _ in range(chance.randint(1, 40)))
    lines = [
        b"X: " + b"a" * 70_000, b"\x00: a", b"a\x00b: c", b": a", b"no colon", b" folded: a",
        b"X: a\r\n b", b"Content-Length: -1", b"Content-Length: 1e3", b"Content-Length: 5, 6",
        b"Content-Length: " + b"9" * 30, b"Content-Length: +5", b"Transfer-Encoding: x",
        b"Transfer-Encoding: chunked, gzip", b"Transfer-Encoding: chunked",
        b"Expect: 100-continue",
        b"Expect: magic", b"Content-Encoding: gzip", b"Content-Type: \xff\xfe",
        b"Host: evil.example",
        b"Host: [", b"Host:", b"Origin: null", b"Origin: http://[", b"Origin: \xff",
        b"Authorization: \xff", b"Authorization: Bearer", b"X-Request-Timeout-Ms: -1",
        b"X-Request-Timeout-Ms: 1e9", b"X-Request-Timeout-Ms: " + b"9" * 12,
        b"X-Request-Timeout-Ms: \xb2", b"Upgrade: h2c\r\nConnection: Upgrade",
        b"Upgrade: websocket",
        b"Cookie: " + b"a=b; " * 500, b"Accept: */*;q=x", b"Range: bytes=0-1", b"\xff: \xff", word,
        b"\r\n".join(b"X-%d: a" % number for number in range(300)),
    ]  # fmt: skip
    made.headers += chance.sample(lines, chance.randint(1, 2))
    return Request("bad headers", route, (made.whole(),), ending="open")


def bad_chunks(chance: random.Random, route: Route) -> Request:
    """Break the framing of a body in chunks."""
    made = draft(replace(route, body=route.body or {"a": 1}))
    size = b"%x" % len(made.body)
    bodies = [
        size + b"\r\n" + made.body + b"\r\n0\r\n\r\n", b"-5\r\nhello\r\n0\r\n\r\n", b"zz\r\n",
        b"ffffffffffffffff\r\na", b"fffffffffffffffff\r\na", size + b"\n" + made.body + b"\n0\n\n",
        size + b";x=" + b"y" * 20_000 + b"\r\n" + made.body + b"\r\n0\r\n\r\n", b"0\r\n\r\n",
        b"1\r\n" + made.body + b"\r\n0\r\n\r\n",
        size + b"\r\n" + made.body + b"\r\n0\r\nX: y\r\n\r\n",
        size + b"\r\n" + made.body,
        b"".join(b"1\r\n%c\r\n" % byte for byte in made.body) + b"0\r\n\r\n",
    ]  # fmt: skip
    head = draft(replace(route, body={})).head(counts=False)
    head = head[:-2] + b"Transfer-Encoding: chunked\r\n\r\n"
    return Request("bad chunks", route, (head + chance.choice(bodies),), ending="open")


def strange_path(chance: random.Random, route: Route) -> Request:
    """Ask for paths and queries that nobody means."""
    ends = ["/", "//", "/..", "/%2e%2e/%2e%2e/etc/passwd", "/%00", "/%ff", "/%", "?", "?limit=-1",
            "?limit=" + "9" * 30, "?limit=x&limit=1", "?status=%ff", "?after=%00", "#a", ";a=b",
            "/" + "a" * 9000, "/%F0%9F%99%82", "?" + "&".join("a=b" for _ in range(2000)), "%2F",
            "?k=1e999", "?offset=-5", "/*", "?cursor=\\", "?x=%u1234"]  # fmt: skip
    path = route.path.replace(
        "fuzz-absent", chance.choice(["%00", "%ff", "..", ".", "a" * 3000, "%2e%2e%2f", "%20"])
    )
    made = draft(replace(route, path=chance.choice([route.path, path]) + chance.choice(ends)))
    return Request("strange path", route, (made.whole(),))


def wrong_method(chance: random.Random, route: Route) -> Request:
    """Use another method, known or made up."""
    methods = ["GET", "POST", "PUT", "PATCH", "HEAD", "OPTIONS", "TRACE", "PROPFIND", "get", "FOO",
               "CONNECT", "PRI"]  # fmt: skip
    made = draft(route)
    made.method = chance.choice(methods)
    made.version = chance.choice([b"HTTP/1.1", b"HTTP/1.0", b"HTTP/2.0", b"HTTP/9.9", b"", b"HTTX"])
    return Request("wrong method", route, (made.whole(),), ending="open")


def no_http(chance: random.Random, route: Route) -> Request:
    """Speak something else."""
    starts = [b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
              b"\x00" * 100, b"\r\n" * 100, b"SSH-2.0-x\r\n", b"GET\r\n\r\n",
              chance.randbytes(500)]  # fmt: skip
    return Request("no HTTP", route, (chance.choice(starts),), ending="open")


def large(chance: random.Random, route: Route) -> Request:
    """Send much: a long text, many texts, or many fields."""
    bodies: list[dict[str, Any]] = [
        {"model": "all-minilm", "input": "a " * 200_000},
        {"model": "all-minilm", "prompt": "\U0001f642" * 20_000, "query": "q" * 100_000},
        {"model": "all-minilm", "input": [""] * 10_001},
        {f"field{number}": number for number in range(5000)},
        {"model": "m" * 1_000_000},
    ]
    return _with_body(route, "large", json.dumps(chance.choice(bodies)).encode())


def _with_body(route: Route, kind: str, body: bytes) -> Request:
    made = draft(route)
    made.body = body.replace(MODEL.encode(), ABSENT.encode()) if route.path in CHANGING else body
    return Request(kind, route, (made.whole(),))


WEIGHTS: dict[Break, int] = {
    wrong_types: 30, no_object: 8, deep: 4, huge_numbers: 8, bad_text: 8, flipped_bytes: 12,
    cut_body: 5, slow_body: 2, bad_headers: 10, bad_chunks: 8, strange_path: 8, wrong_method: 5,
    no_http: 3, large: 1,
}  # fmt: skip


BODY_KINDS = {wrong_types, no_object, deep, huge_numbers, bad_text, large}
"""Those that are lost on a route that reads no body."""


def requests(routes: list[Route], count: int, seed: int) -> list[Request]:
    """Return so many broken requests; the same for the same seed and routes."""
    chance = random.Random(seed)
    reading = [route for route in routes if route.body is not None]
    kinds = chance.choices(list(WEIGHTS), list(WEIGHTS.values()), k=count)
    return [
        make(chance, chance.choice(reading if make in BODY_KINDS else routes)) for make in kinds
    ]
