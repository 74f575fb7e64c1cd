"""Test that only this machine reaches the app, through the app's own pages, however the server is started."""

from __future__ import annotations

import asyncio
import http.client
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from annotator.errors import AddressRefused, BadInput
from annotator.gate import EXPOSED, Gate, checked_names, is_loopback, refuse_open_address, why_refused

ROOT = Path(__file__).resolve().parents[2]
OURS = "127.0.0.1:8501"
NOBODY: frozenset[str] = frozenset()


def request(kind: str = "http", method: str = "GET", server: str = "127.0.0.1", **headers: str) -> dict[str, Any]:
    sent = {"host": OURS, **{name.replace("_", "-"): value for name, value in headers.items()}}
    pairs = [(name.encode(), value.encode()) for name, value in sent.items()]
    return {"type": kind, "method": method, "server": (server, 8501), "headers": pairs}


@pytest.mark.parametrize("host", [OURS, "localhost:8501", "LocalHost:8501", "[::1]:8501"])
def test_our_own_names_are_answered(host: str) -> None:
    assert why_refused(request(host=host), NOBODY) == ""
    assert why_refused(request("websocket", host=host, origin=f"http://{host}"), NOBODY) == ""


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:8501",
        "127.0.0.1",
        "127.0.0.1:80",
        "localhost:8502",
        "localhost.evil.example:8501",
        "",
        "0.0.0.0:8501",
        "a@localhost:8501",
        "localhost:8501, evil.example",
        "192.168.1.7:8501",
        "localhost:8501/",
    ],
)
def test_a_foreign_name_that_leads_here_is_refused(host: str) -> None:
    assert "under this name" in why_refused(request(host=host), NOBODY)


def test_no_name_or_two_names_are_refused() -> None:
    for hosts in ([], [(b"host", OURS.encode())] * 2):
        assert "under this name" in why_refused({**request(), "headers": hosts}, NOBODY)


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "null", "http://localhost:3000", "http://127.0.0.1:8502", f"ftp://{OURS}", ""]
)
def test_the_page_of_another_site_or_port_drives_nothing(origin: str) -> None:
    assert why_refused(request("websocket", origin=origin), NOBODY)
    for method in ("GET", "PUT", "POST", "DELETE"):
        assert why_refused(request(method=method, origin=origin), NOBODY)


def test_what_changes_something_must_say_where_it_comes_from() -> None:
    assert why_refused(request("websocket"), NOBODY)
    assert why_refused(request(method="PUT"), NOBODY)
    assert why_refused(request(method="PUT", origin=f"http://{OURS}"), NOBODY) == ""


@pytest.mark.parametrize(
    ("site", "mode", "passes"),
    [
        ("same-origin", "cors", True),
        ("none", "navigate", True),
        ("cross-site", "navigate", True),  # a link to the app, which no frame can show
        ("cross-site", "no-cors", False),
        ("same-site", "no-cors", False),
    ],
)
def test_another_site_embeds_nothing_of_ours(site: str, mode: str, passes: bool) -> None:
    asked = request(sec_fetch_site=site, sec_fetch_mode=mode)
    assert (why_refused(asked, NOBODY) == "") is passes


def test_a_request_that_comes_in_from_outside_is_refused_whatever_it_calls_us() -> None:
    assert "from the machine it runs on" in why_refused(request(server="192.168.1.7"), NOBODY)
    assert why_refused({**request(), "server": None}, NOBODY)
    assert why_refused({**request(), "server": ("/tmp/socket", None)}, NOBODY)


def test_an_exposed_name_is_answered_and_no_other() -> None:
    names = checked_names(["Lab.example.org", " 10.0.0.5:8080 ", ""])
    for host in ("lab.example.org", "lab.example.org:443", "10.0.0.5:8080"):
        assert why_refused(request("websocket", server="10.0.0.5", host=host, origin=f"https://{host}"), names) == ""
    for host in ("10.0.0.5:8501", "10.0.0.5", "other.example.org", "x.lab.example.org"):
        assert why_refused(request(server="10.0.0.5", host=host), names)
    assert why_refused(request("websocket", host="lab.example.org", origin="https://evil.example"), names)


@pytest.mark.parametrize("name", ["*", "*.example.org", "http://lab.example.org", "a b", "lab.example.org/", "a:b"])
def test_only_a_host_name_can_be_exposed(name: str) -> None:
    with pytest.raises(BadInput, match="not a host name"):
        checked_names([name])


@pytest.mark.parametrize("address", ["127.0.0.1", "127.0.0.2", "::1", "localhost"])
def test_the_addresses_of_this_machine_alone_are_open_to_everybody_on_it(address: str) -> None:
    assert is_loopback(address)
    refuse_open_address(address, NOBODY)


@pytest.mark.parametrize("address", ["0.0.0.0", "::", "", None, "192.168.1.7", "lab.example.org", "unix:///tmp/app"])
def test_no_other_address_is_opened_unless_it_is_exposed(address: str | None) -> None:
    with pytest.raises(AddressRefused, match="there is no sign-in"):
        refuse_open_address(address, NOBODY)
    refuse_open_address(address, frozenset({"lab.example.org"}))


def test_every_response_forbids_frames_and_what_is_loaded_from_elsewhere() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"X-Frame-Options", b"ALLOWALL")]})

    for scope in (request(), request(host="evil.example")):
        sent: list[Any] = []

        async def note(message: Any, sent: list[Any] = sent) -> None:
            sent.append(message)

        asked = Gate(app)(scope, lambda: None, note)  # type: ignore[arg-type]
        with ThreadPoolExecutor(1) as thread:  # a browser of other tests has a loop in this one
            thread.submit(asyncio.run, asked).result()
        headers = dict(sent[0]["headers"])
        assert headers[b"x-frame-options"] == b"DENY"
        assert b"X-Frame-Options" not in headers
        assert b"frame-ancestors 'none'" in headers[b"content-security-policy"]
        assert b"default-src 'self'" in headers[b"content-security-policy"]


# The real server


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def environment(folder: Path, **more: str) -> dict[str, str]:
    """Return an environment that reaches nothing outside, and notes what was tried."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("STREAMLIT_", "ANNOTATOR_"))}
    paths = os.pathsep.join((str(ROOT / "tests" / "offline"), str(ROOT)))
    log = str(folder / "attempts.log")
    return kept | {"PYTHONPATH": paths, "ANNOTATOR_OFFLINE_LOG": log, "ANNOTATOR_PROJECTS": str(folder), **more}


STREAMLIT = ("-m", "streamlit", "run", str(ROOT / "streamlit_app.py"), "--server.headless=true")
SERVE = ("-m", "annotator.cli.main", "serve")


@contextmanager
def running(folder: Path, port: int, *command: str, **env: str) -> Iterator[None]:
    with (folder / "server.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, *command], cwd=folder, env=environment(folder, **env), stdout=log, stderr=log
        )
    try:
        deadline = time.monotonic() + 120
        while not listens(port):
            assert process.poll() is None, (folder / "server.log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.2)
        yield
    finally:
        process.kill()
        process.wait()


def listens(port: int) -> bool:
    try:
        return ask(port)[0] == 200
    except OSError:
        return False


def ask(port: int, method: str = "GET", path: str = "/_stcore/health", **headers: str) -> tuple[int, dict[str, str]]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request(method, path, headers={name.replace("_", "-"): value for name, value in headers.items()})
        answer = connection.getresponse()
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}
    finally:
        connection.close()


def shake_hands(port: int, **headers: str) -> int:
    """Return the status of a WebSocket handshake: 101 is a connection."""
    return ask(
        port,
        path="/_stcore/stream",
        Upgrade="websocket",
        Connection="Upgrade",
        Sec_WebSocket_Key="dGhlIHNhbXBsZSBub25jZQ==",
        Sec_WebSocket_Version="13",
        **headers,
    )[0]


@pytest.mark.parametrize("way", ["annotator serve", "streamlit run"])
def test_the_server_guards_everything_it_serves_and_looks_nothing_up(tmp_path: Path, way: str) -> None:
    port = free_port()
    command = {
        "annotator serve": (*SERVE, "--port", str(port), "--projects", str(tmp_path)),
        "streamlit run": (*STREAMLIT, f"--server.port={port}"),
    }[way]
    with running(tmp_path, port, *command):
        own, foreign = f"127.0.0.1:{port}", f"evil.example:{port}"
        for path in ("/", "/_stcore/health", "/_stcore/host-config", "/media/x", "/static/x", "/_stcore/metrics"):
            status, headers = ask(port, path=path)
            assert status != 403, path
            assert headers["x-frame-options"] == "DENY"
            assert "frame-ancestors 'none'" in headers["content-security-policy"]
            assert headers["x-content-type-options"] == "nosniff"
            assert ask(port, path=path, Host=foreign)[0] == 403
        upload = "/_stcore/upload_file/session/file"
        for origin in ("http://evil.example", f"http://{foreign}", f"http://localhost:{port + 1}", "null"):
            assert ask(port, "PUT", upload, Origin=origin)[0] == 403
            assert shake_hands(port, Host=own, Origin=origin) == 403
        assert shake_hands(port, Host=foreign, Origin=f"http://{foreign}") == 403
        assert shake_hands(port, Host=own) == 403
        assert shake_hands(port, Host=own, Origin=f"http://{own}") == 101
        assert not (tmp_path / "attempts.log").exists(), (tmp_path / "attempts.log").read_text()


def written(folder: Path, address: str) -> dict[str, str]:
    (folder / ".streamlit").mkdir()
    (folder / ".streamlit" / "config.toml").write_text(f'[server]\naddress = "{address}"\n')
    return {}


@pytest.mark.parametrize(
    "way",
    ["serve --address", "streamlit run --server.address", "an empty address", "the environment", "a file"],
)
def test_no_way_of_starting_it_opens_it_to_other_machines(tmp_path: Path, way: str) -> None:
    port, env = free_port(), {}
    command: tuple[str, ...] = (*STREAMLIT, f"--server.port={port}")
    match way:
        case "serve --address":
            command = (*SERVE, "--port", str(port), "--address", "0.0.0.0")
        case "streamlit run --server.address":
            command = (*command, "--server.address=0.0.0.0")
        case "an empty address":
            command = (*command, "--server.address=")
        case "the environment":
            env = {"STREAMLIT_SERVER_ADDRESS": "0.0.0.0"}
        case "a file":
            written(tmp_path, "0.0.0.0")
            command = ("-m", "streamlit", "run", *_copied_app(tmp_path), f"--server.port={port}")
    done = subprocess.run(
        [sys.executable, *command],
        cwd=tmp_path,
        env=environment(tmp_path, **env),
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert done.returncode == 1, done.stdout + done.stderr
    said = " ".join(done.stderr.split())
    assert "anyone who can reach this machine could read and change all projects" in said
    assert "--expose" in said
    assert "Traceback" not in said


def _copied_app(folder: Path) -> tuple[str, ...]:
    """Copy the app to where no settings of ours lie beside it."""
    copy = folder / "streamlit_app.py"
    copy.write_text((ROOT / "streamlit_app.py").read_text(encoding="utf-8"), encoding="utf-8")
    return str(copy), "--server.headless=true"


def test_what_is_exposed_answers_under_the_names_that_were_given_and_no_others(tmp_path: Path) -> None:
    port = free_port()
    command = (*SERVE, "--port", str(port), "--address", "0.0.0.0", "--expose", "lab.example.org")
    with running(tmp_path, port, *command):
        assert ask(port, Host="lab.example.org")[0] == 200
        assert shake_hands(port, Host="lab.example.org", Origin="https://lab.example.org") == 101
        assert ask(port, Host="evil.example")[0] == 403
        assert shake_hands(port, Host="lab.example.org", Origin="https://evil.example") == 403
        assert not (tmp_path / "attempts.log").exists()


def test_serve_tells_what_exposing_means(tmp_path: Path) -> None:
    command = [sys.executable, *SERVE, "--help"]
    done = subprocess.run(command, cwd=tmp_path, env=environment(tmp_path), capture_output=True, text=True, check=True)
    assert "anyone who can reach this machine can read and change all projects" in " ".join(done.stdout.split())
    assert EXPOSED == "ANNOTATOR_EXPOSE"
