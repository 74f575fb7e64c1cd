"""Who may reach the app: this machine alone, through a page of the app itself, unless somebody asks for more.

The app has no sign-in, so whoever can send it a request can read and change every project. Three things are checked
of every HTTP request and every WebSocket handshake, before Streamlit sees it:

- It arrives at a loopback address. `annotator serve --expose NAME` lifts this, and says under which names.
- Its Host header is a loopback name with our own port, or a name that is exposed: a foreign site whose name is made
  to lead to this machine (DNS rebinding) still sends its own name.
- If it says that a page has caused it (Origin, Sec-Fetch-Site), that page is one of the app's. WebSockets and
  requests that change something must say so.

Every response forbids frames of other sites and everything that is loaded from elsewhere.
"""

import os
import re
from collections.abc import Awaitable, Callable, MutableMapping
from functools import partial
from ipaddress import ip_address
from typing import Any

from annotator.errors import AddressRefused, BadInput

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Server = Callable[[Scope, Receive, Send], Awaitable[None]]

EXPOSED = "ANNOTATOR_EXPOSE"  # the names under which other machines may reach the app, separated by commas
_NAME = re.compile(r"(?:[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?|\[[0-9a-f:.]+\])(?::\d{1,5})?", re.IGNORECASE)
_HERE = ("localhost", "127.0.0.1", "[::1]")
_READING = ("GET", "HEAD", "OPTIONS")
_HEADERS = {
    # Streamlit and its charts compile code and add styles and scripts to the page by themselves.
    "content-security-policy": "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; "
    "style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; font-src 'self' data:; media-src 'self' blob:; "
    "worker-src 'self' blob:; connect-src 'self' data: blob:; object-src 'none'; base-uri 'self'; form-action 'self'; "
    "frame-ancestors 'none'",
    "x-frame-options": "DENY",
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}


def exposed() -> frozenset[str]:
    """Return the names under which other machines may reach the app. Raises BadInput."""
    return checked_names(os.environ.get(EXPOSED, "").split(","))


def checked_names(names: list[str]) -> frozenset[str]:
    """Return host names in lower case, each with or without a port. Raises BadInput."""
    given = [name.strip().lower() for name in names if name.strip()]
    for name in given:
        if not _NAME.fullmatch(name):
            raise BadInput(f"“{name}” is no host name.", "Give one as in lab.example.org or 192.168.1.7:8501.")
    return frozenset(given)


def refuse_open_address(address: str | None, names: frozenset[str]) -> None:
    """Refuse to listen where other machines may call, unless that is asked for. Raises AddressRefused."""
    if names or is_loopback(address):
        return
    raise AddressRefused(
        f"The app is not opened at {address or 'every address'}: whoever reaches this machine could read and change "
        "all projects, for nobody has to sign in.",
        f"Use 127.0.0.1. To open it all the same, run `annotator serve --address ADDRESS --expose NAME`, or set "
        f"{EXPOSED} to the host names under which it may be reached.",
    )


def is_loopback(address: str | None) -> bool:
    """Say whether only this machine can reach an address. None or an empty one stands for all addresses."""
    if address == "localhost":
        return True
    try:
        return ip_address((address or "").strip("[]")).is_loopback
    except ValueError:
        return False


class Gate:
    """An ASGI middleware that lets pass what may reach the app, and guards what leaves it."""

    def __init__(self, app: Server) -> None:
        self.app = app
        self.names = exposed()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request or handshake."""
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
        elif reason := why_refused(scope, self.names):
            await _refuse(scope, partial(_send_guarded, send), reason)
        else:
            await self.app(scope, receive, partial(_send_guarded, send))


def why_refused(scope: Scope, names: frozenset[str]) -> str:
    """Return why a request may not reach the app; nothing if it may."""
    address, port = scope.get("server") or ("", None)
    if not names and not is_loopback(address):
        return "This app answers only on the machine it runs on."
    hosts = _values(scope, b"host")
    if len(hosts) != 1 or not _is_ours(hosts[0], port, names):
        return f"This app does not answer under this name. Names can be allowed with {EXPOSED}."
    origins = _values(scope, b"origin")
    must_tell = scope["type"] == "websocket" or scope["method"] not in _READING
    if len(origins) > 1 or (must_tell and not origins):
        return "This request does not say which page it comes from."
    if origins and origins[0] not in (f"http://{hosts[0]}", f"https://{hosts[0]}"):
        return "This request comes from the page of another site."
    sites, modes = _values(scope, b"sec-fetch-site"), _values(scope, b"sec-fetch-mode")
    if sites and sites[0] not in ("same-origin", "none") and modes != ["navigate"]:
        return "This request comes from the page of another site."
    return ""


def _values(scope: Scope, name: bytes) -> list[str]:
    return [value.decode("latin-1").strip().lower() for key, value in scope["headers"] if key.lower() == name]


def _is_ours(host: str, port: int | None, names: frozenset[str]) -> bool:
    """Say whether a Host header is a loopback name with our port, or one that is exposed, with any port if none is."""
    ours = {f"{name}:{port}" for name in _HERE} | ({*_HERE} if port in (80, 443) else set())
    return host in ours or host in names or (bool(_NAME.fullmatch(host)) and re.sub(r":\d+$", "", host) in names)


async def _refuse(scope: Scope, send: Send, reason: str) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1008, "reason": reason})
        return
    headers = [(b"content-type", b"text/plain; charset=utf-8")]
    await send({"type": "http.response.start", "status": 403, "headers": headers})
    await send({"type": "http.response.body", "body": reason.encode()})


async def _send_guarded(send: Send, message: MutableMapping[str, Any]) -> None:
    if message["type"] == "http.response.start":
        kept = [(key, value) for key, value in message.get("headers", ()) if key.decode().lower() not in _HEADERS]
        added = [(key.encode(), value.encode()) for key, value in _HEADERS.items()]
        message = {**message, "headers": kept + added}
    await send(message)
