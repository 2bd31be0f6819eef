"""Where settings come from, Ollama's variables among them, and what `embedserve env` tells."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from embedserve.api.keys import parse_keys
from embedserve.bootstrap.access import read_keys
from embedserve.bootstrap.ollama_environment import HostAddress, parse_host
from embedserve.bootstrap.sources import read_all, shown
from embedserve.cli.doctor import own_key
from embedserve.cli.own_house import with_own_key
from embedserve.errors import StartupError
from embedserve.settings import read_settings
from tests.live import environment

SECRET = "owner-0123456789"


@pytest.mark.parametrize(
    ("value", "host", "port"),
    [
        ("1.2.3.4", "1.2.3.4", 11434),
        ("1.2.3.4:1234", "1.2.3.4", 1234),
        (":1234", "0.0.0.0", 1234),
        (":0", "0.0.0.0", 0),
        ("example.com", "example.com", 11434),
        ("example.com:1234", "example.com", 1234),
        ("[::1]", "::1", 11434),
        ("::1", "::1", 11434),
        ("[::]", "::", 11434),
        ("[::1]:1337", "::1", 1337),
        ("http://h", "h", 80),
        ("https://h", "h", 443),
        ("http://h:1234", "h", 1234),
        ("https://h:1234", "h", 1234),
        ("https://example.com/ollama", "example.com", 443),
        ("http://[::1]:99/x", "::1", 99),
        ("ollama.com", "ollama.com", 443),
        (":66000", "0.0.0.0", 11434),
        (":-1", "0.0.0.0", 11434),
        ("0.0.0.0", "0.0.0.0", 11434),
    ],
)
def test_ollama_host_is_read_as_ollama_does(value: str, host: str, port: int) -> None:
    found = parse_host(value)
    assert (found.host, found.port) == (host, port)
    for quoted in (f' "{value}" ', f"'{value}'"):
        settings = read_all({}, {"OLLAMA_HOST": quoted}).settings
        assert (settings.host, settings.port) == (host, port)


def test_a_port_that_is_none_is_replaced_and_said() -> None:
    assert parse_host("h:66000") == HostAddress("h", 11434, "`66000` is no port; 11434 is taken")
    assert "no port" in read_all({}, {"OLLAMA_HOST": ":-1"}).ignored["OLLAMA_HOST"]
    assert "TLS" in read_all({}, {"OLLAMA_HOST": "https://h"}).ignored["OLLAMA_HOST"]


@pytest.mark.parametrize(
    ("value", "seconds"),
    [("5m", 300), ("1.5h", 5400), ("300", 300), ("-1", -1), ("-1m", -1), ("0", 0), ("junk", 300)],
)
def test_ollama_keep_alive(value: str, seconds: float) -> None:
    reading = read_all({}, {"OLLAMA_KEEP_ALIVE": value})
    assert reading.settings.keep_alive_s == seconds
    assert ("OLLAMA_KEEP_ALIVE" in reading.ignored) == (value == "junk")


def test_other_variables_of_ollama() -> None:
    reading = read_all(
        {},
        {
            "OLLAMA_ORIGINS": "https://a.example, chrome-extension://*",
            "OLLAMA_MAX_QUEUE": "7",
            "OLLAMA_MAX_LOADED_MODELS": "'2'",
            "OLLAMA_DEBUG": "1",
            "OLLAMA_MODELS": "/models",
            "OLLAMA_NEVER_HEARD_OF": "1",
            "OLLAMA_EDITOR": "",
        },
    )
    settings = reading.settings
    assert settings.allowed_origins == ("https://a.example", "chrome-extension://*")
    assert (settings.max_requests, settings.max_loaded_models) == (7, 2)
    assert settings.log_level == "debug"
    assert set(reading.ignored) == {"OLLAMA_MODELS", "OLLAMA_NEVER_HEARD_OF"}
    assert "GGUF" in reading.ignored["OLLAMA_MODELS"]
    assert reading.origins["max_requests"] == "environment OLLAMA_MAX_QUEUE"


def test_option_goes_before_own_variable_before_ollamas() -> None:
    environ = {"OLLAMA_HOST": "1.2.3.4:1", "EMBEDSERVE_PORT": "2", "EMBEDSERVE_KEEP_ALIVE_S": "3"}
    reading = read_all({"port": None}, environ)
    assert (reading.settings.host, reading.settings.port) == ("1.2.3.4", 2)
    assert reading.origins["host"] == "environment OLLAMA_HOST"
    assert reading.origins["port"] == "environment EMBEDSERVE_PORT"
    assert reading.origins["device"] == "default"
    assert "EMBEDSERVE_PORT" in reading.ignored["OLLAMA_HOST"]
    option = read_all({"port": 4}, environ)
    assert (option.settings.port, option.origins["port"]) == (4, "option")


@pytest.mark.parametrize("variable", ["OLLAMA_ORIGINS", "EMBEDSERVE_ALLOWED_ORIGINS"])
def test_an_origin_without_scheme_stops_the_start(variable: str) -> None:
    with pytest.raises(StartupError, match="lacks its scheme"):
        read_all({}, {variable: "chat.example"})


@pytest.mark.parametrize(
    "url",
    [
        "127.0.0.1:11435",
        "ftp://h",
        "file:///etc",
        f"http://u:{SECRET}@h",
        "http://h?a",
        "",
        "http://",
    ],
)
def test_an_upstream_is_a_plain_url(url: str) -> None:
    with pytest.raises(StartupError, match="upstream") as raised:
        read_settings({}, {"EMBEDSERVE_UPSTREAM": url})
    assert SECRET not in raised.value.message


def test_secrets_are_masked() -> None:
    reading = read_all(
        {},
        {
            "EMBEDSERVE_API_KEYS": f"admin:{SECRET}",
            "EMBEDSERVE_API_KEY": SECRET,
            "EMBEDSERVE_CHROMA_URL": f"http://user:{SECRET}@chroma:8000",
        },
    )
    values = {one.name: one.value for one in shown(reading)}
    assert values["api_keys"] == values["api_key"] == "********"
    assert values["chroma_url"] == "http://********@chroma:8000"
    assert SECRET not in repr(shown(reading))


def test_keys_are_read_from_both_settings(tmp_path: Path) -> None:
    mounted = tmp_path / "keys"
    mounted.write_text(f"# mounted\ningest:{SECRET}\n", encoding="utf-8")
    environ = {"EMBEDSERVE_API_KEYS": f"read:{SECRET}", "EMBEDSERVE_API_KEYS_FILE": str(mounted)}
    scopes = [key.scopes for key in read_keys(read_settings({}, environ))]
    assert scopes == [{"read"}, {"ingest"}]
    assert read_keys(read_settings({}, {})) == []


@pytest.mark.parametrize("content", ["", "# nobody\n", None])
def test_a_setting_that_has_no_key_stops_the_start(tmp_path: Path, content: str | None) -> None:
    file = tmp_path / "keys"
    if content is not None:
        file.write_text(content, encoding="utf-8")
    for environ in ({"EMBEDSERVE_API_KEYS": " , "}, {"EMBEDSERVE_API_KEYS_FILE": str(file)}):
        with pytest.raises(StartupError, match=r"has no key|cannot be read"):
            read_keys(read_settings({}, environ))


def test_a_command_has_a_key_of_the_house_that_it_opens() -> None:
    environ = {"EMBEDSERVE_API_KEYS": f"read:{SECRET}", "EMBEDSERVE_UPSTREAM": "http://h"}
    opened = with_own_key(read_settings({}, environ))
    others, own = read_keys(opened)
    assert opened.api_key is not None
    assert own == parse_keys([f"admin:{opened.api_key.get_secret_value()}"])[0]
    assert others.scopes == {"read"}
    assert opened.upstream is None
    assert with_own_key(read_settings({}, {})).api_key is None


def test_env_prints_where_each_value_is_from(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "embedserve", "env", "--json", "--home", str(tmp_path)],
        env=environment(
            EMBEDSERVE_API_KEYS=f"admin:{SECRET}", OLLAMA_HOST=":5", OLLAMA_MODELS="/m"
        ),
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert SECRET not in done.stdout + done.stderr
    found = json.loads(done.stdout)
    rows = {row["name"]: (row["value"], row["origin"]) for row in found["settings"]}
    assert rows["home"] == (str(tmp_path), "option")
    assert rows["port"] == ("5", "environment OLLAMA_HOST")
    assert rows["api_keys"] == ("********", "environment EMBEDSERVE_API_KEYS")
    assert rows["upstream"] == (None, "default")
    assert list(found["ignored"]) == ["OLLAMA_MODELS"]


def test_doctor_tells_the_key_of_the_settings_to_the_homes_own_server_only() -> None:
    settings = read_settings({}, {"EMBEDSERVE_API_KEY": "reader-0123456789"})
    assert own_key(None, settings) == "reader-0123456789"
    assert own_key("http://elsewhere", settings) == ""
    assert own_key(None, read_settings({}, {})) == ""
