from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import httpx
import httpx2
import pytest
from openai_toys import VARIABLE, asking, spec_of, writing
from scripted_server import KEY, ScriptedServer, serving

from normloom.core.errors import ConfigError, ModelError, UsageError
from normloom.core.machine.proxies import proxy_variable, spare_loopback
from normloom.models import load_model

DEAD = "127.0.0.1:9"  # nobody listens there
PROXIES = [
    {"HTTP_PROXY": f"http://{DEAD}", "HTTPS_PROXY": f"http://{DEAD}"},
    {"ALL_PROXY": f"socks5://{DEAD}"},
    {"all_proxy": f"socks://{DEAD}/"},  # as GNOME writes it
    {"http_proxy": DEAD, "NO_PROXY": "example.com"},
]


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http", "https", "all", "no"):
        monkeypatch.delenv(f"{name}_proxy", raising=False)
        monkeypatch.delenv(f"{name}_proxy".upper(), raising=False)
    monkeypatch.setenv("NO_PROXY", "")  # so that what is set below is undone too
    monkeypatch.setenv("no_proxy", "")
    monkeypatch.setenv(VARIABLE, KEY)


@pytest.fixture(scope="module")
def server() -> Iterator[ScriptedServer]:
    with serving() as scripted:
        yield scripted


def put(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize("variables", PROXIES)
def test_loopback_is_reached_whatever_the_environment_says(
    server: ScriptedServer, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]
) -> None:
    put(monkeypatch, variables)
    spare_loopback()
    with asking(server.base_url, retries=0) as model:
        assert model.generate([writing("text")])[0].error is None
    for host in ("127.0.0.1", "localhost"):  # as Prefect's client and others ask, by either library
        address = server.base_url.replace("127.0.0.1", host)
        assert httpx.get(f"{address}/nothing").status_code == 404
        assert httpx2.get(f"{address}/nothing").status_code == 404


@pytest.mark.parametrize("variables", [PROXIES[0], PROXIES[1]])
def test_an_endpoint_on_loopback_needs_no_command_line_to_be_spared(
    server: ScriptedServer, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]
) -> None:
    put(monkeypatch, variables)
    with asking(server.base_url, retries=0) as model:
        assert model.generate([writing("text")])[0].error is None


def test_prefect_s_client_reaches_its_server_past_a_socks_proxy(
    server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(monkeypatch, {"ALL_PROXY": f"socks5h://{DEAD}"})
    code = (
        "from normloom.core.machine.proxies import spare_loopback; spare_loopback()\n"
        "from prefect.client.orchestration import get_client\n"
        f"with get_client(sync_client=True) as client: print(client._client.get('{server.base_url}/x').status_code)"
    )
    monkeypatch.setenv("PREFECT_API_URL", server.base_url)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "404" in done.stdout + done.stderr, done.stderr[-1000:]


@pytest.mark.parametrize(
    "value", ["socks4://user:secret-word@10.0.0.1:1080", "ftp://h", "http://", "http://[secret-word"]
)
def test_a_proxy_that_no_client_can_use_is_one_sentence(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    put(monkeypatch, {"ALL_PROXY": value})
    with pytest.raises(UsageError, match=r"variable ALL_PROXY is not a usable proxy; unset it") as caught:
        spare_loopback()
    assert "secret-word" not in str(caught.value)
    done = subprocess.run([sys.executable, "-m", "normloom", "tables"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 1


def test_a_library_user_without_the_command_line_is_told_too(monkeypatch: pytest.MonkeyPatch) -> None:
    put(monkeypatch, {"ALL_PROXY": "socks4://10.0.0.1:1080"})
    with pytest.raises(ConfigError, match="a proxy of the environment cannot be used"):
        load_model(spec_of("http://api.example.com/v1"))


def test_a_proxy_that_does_not_answer_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    put(monkeypatch, {"HTTP_PROXY": f"http://user:secret-word@{DEAD}"})
    with (
        asking("http://api.example.com/v1", retries=0) as model,
        pytest.raises(ModelError, match=r"cannot be reached through the proxy in HTTP_PROXY") as caught,
    ):
        model.generate([writing("text")])
    assert "secret-word" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "spared"),
    [
        ("http://127.0.0.2:80/v1", True),
        ("http://[::1]:8000/v1", True),
        ("http://gpu.localhost/v1", True),
        ("http://10.1.2.3:8000/v1", True),
        ("https://inside.example.com/v1", True),
        ("https://example.org/v1", False),
        ("http://10.2.0.1/v1", False),
    ],
)
def test_what_no_proxy_says_is_kept(monkeypatch: pytest.MonkeyPatch, url: str, spared: bool) -> None:
    put(monkeypatch, {"ALL_PROXY": f"http://{DEAD}", "NO_PROXY": ".example.com,10.1.0.0/16", "no_proxy": ""})
    monkeypatch.delenv("no_proxy")
    assert proxy_variable(url) == (None if spared else "ALL_PROXY")
    spare_loopback()
    assert proxy_variable(url) == (None if spared else "ALL_PROXY")


def test_an_environment_without_proxies_is_left_alone() -> None:
    environment = {"PATH": "/bin"}
    spare_loopback(environment)
    assert environment == {"PATH": "/bin"}
