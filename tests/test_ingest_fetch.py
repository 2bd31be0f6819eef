"""Addresses are fetched within bounds, and never from inside a network unless that is allowed."""

import gzip
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from embedserve.errors import ExtractionError
from embedserve.ingest.fetch import Fetcher, FetchLimits, GoneError, is_public
from embedserve.ingest.sitemap import MAX_BYTES, is_sitemap_index, locations, unpacked
from tests.small_site import Page, Site, serving


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with serving() as found:
        yield found


def fetcher(folder: Path, **limits: float) -> Fetcher:
    values = {"max_bytes": 1000, "timeout_s": 5.0, "delay_s": 0.0, **limits}
    return Fetcher(
        folder,
        FetchLimits(
            max_bytes=int(values["max_bytes"]),
            timeout_s=values["timeout_s"],
            delay_s=values["delay_s"],
            allows_private=bool(values.get("private", 1)),
        ),
    )


def failure(fetch: Fetcher, url: str) -> ExtractionError:
    with pytest.raises(ExtractionError) as caught, fetch.fetch(url):
        pass
    assert url in caught.value.message
    assert caught.value.stage == "fetch"
    return caught.value


def test_a_page_is_lent_as_a_file_and_known_again(tmp_path: Path, site: Site) -> None:
    site.put("/a.php", "<p>Hello.", ETag='"1"', Last_Modified="Mon")
    site.pages["/old"] = Page(status=301, headers={"Location": "/older"})
    site.pages["/older"] = Page(status=302, headers={"Location": f"{site.url}/a.php"})
    fetch = fetcher(tmp_path)
    with fetch.fetch(f"{site.url}/old") as found:
        assert found.place is not None
        assert (found.place.read_bytes(), found.place.suffix) == (b"<p>Hello.", ".html")
        assert (found.size_bytes, found.etag, found.last_modified) == (9, '"1"', "Mon")
    assert list(tmp_path.iterdir()) == []
    with fetch.fetch(f"{site.url}/a.php", etag='"1"') as found:
        assert found.place is None


@pytest.mark.parametrize(
    ("url", "code"),
    [
        ("file:///etc/passwd", "not_allowed"),
        ("gopher://127.0.0.1/", "not_allowed"),
        ("http://user:word@127.0.0.1/", "not_allowed"),
        ("http://[::1", "fetch_failed"),
        ("http://127.0.0.1:99999/", "fetch_failed"),
        ("http://no-such-name.invalid/", "fetch_failed"),
    ],
)
def test_other_addresses_are_refused(tmp_path: Path, url: str, code: str) -> None:
    assert failure(fetcher(tmp_path), url).code == code


def test_inner_addresses_are_refused_before_anything_is_sent(tmp_path: Path, site: Site) -> None:
    site.asked.clear()
    fetch = fetcher(tmp_path, private=0)
    port = site.url.rpartition(":")[2]
    for host in ("127.0.0.1", "localhost", "[::1]", "2130706433", "0x7f.1", "[::ffff:127.0.0.1]"):
        assert failure(fetch, f"http://{host}:{port}/").code == "not_allowed", host
    assert site.asked == []


def test_a_redirect_is_looked_at_as_well(tmp_path: Path, site: Site) -> None:
    site.pages["/out"] = Page(status=302, headers={"Location": "file:///etc/passwd"})
    site.pages["/round"] = Page(status=302, headers={"Location": "/round"})
    assert failure(fetcher(tmp_path), f"{site.url}/out").code == "not_allowed"
    assert "redirects more than" in failure(fetcher(tmp_path), f"{site.url}/round").message


def test_size_and_time_are_bounded(tmp_path: Path, site: Site) -> None:
    site.put("/large", "x" * 1001)
    site.pages["/slow"] = Page(b"x" * 100, drip_s=0.05)
    site.pages["/packed"] = Page(b"x", headers={"Content-Encoding": "gzip"})
    assert failure(fetcher(tmp_path), f"{site.url}/large").code == "too_large"
    started = time.monotonic()
    error = failure(fetcher(tmp_path, timeout_s=0.4), f"{site.url}/slow")
    assert (error.code, error.is_retryable) == ("timed_out", True)
    assert time.monotonic() - started < 3  # dripping all of it takes ten
    assert failure(fetcher(tmp_path), f"{site.url}/packed").code == "fetch_failed"
    assert list(tmp_path.iterdir()) == []


def test_errors_tell_whether_to_try_again(tmp_path: Path, site: Site) -> None:
    for status, is_retryable in ((403, False), (429, True), (503, True)):
        site.pages["/x"] = Page(status=status)
        assert failure(fetcher(tmp_path), f"{site.url}/x").is_retryable == is_retryable
    site.pages["/x"] = Page(status=410)
    for path in ("/x", "/nothing"):
        with pytest.raises(GoneError), fetcher(tmp_path).fetch(site.url + path):
            pass


def test_a_host_is_given_time_between_two_requests(tmp_path: Path, site: Site) -> None:
    site.put("/a", "a")
    fetch, pauses = fetcher(tmp_path, delay_s=9), list[float]()
    for _ in range(2):
        with fetch.fetch(f"{site.url}/a", pause=pauses.append):
            pass
    [pause] = pauses
    assert 8 < pause <= 9


def test_which_numbers_are_public() -> None:
    for number in ("8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8"):
        assert is_public(number), number
    for number in (
        "10.0.0.1", "172.16.0.1", "192.168.1.1", "127.9.9.9", "169.254.169.254", "0.0.0.0",
        "100.64.0.1", "224.0.0.1", "255.255.255.255", "::", "::1", "fe80::1%eth0", "fc00::1",
        "ff02::1", "::ffff:10.0.0.1", "64:ff9b::a00:1", "2002:a00:1::",
    ):  # fmt: skip
        assert not is_public(number), number


def test_sitemaps_are_lists_of_addresses() -> None:
    plain = (
        b"<?xml version='1.0'?><urlset><url><loc> http://a/1?x=1&amp;y=2 </loc></url>"
        b"<s:url><s:loc><![CDATA[http://a/2]]></s:loc></s:url><loc></loc></urlset>"
    )
    assert list(locations(plain)) == ["http://a/1?x=1&y=2", "http://a/2"]
    assert not is_sitemap_index(plain)
    assert is_sitemap_index(b"<sitemapindex xmlns='x'><sitemap>")
    assert unpacked(gzip.compress(plain)) == plain
    assert len(unpacked(gzip.compress(bytes(MAX_BYTES + 5)))) == MAX_BYTES
    with pytest.raises(ValueError, match="damaged"):
        unpacked(b"\x1f\x8b broken")
