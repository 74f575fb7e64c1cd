"""Restrict access to the app: by default to this machine, and to requests from the app's own pages.

The app has no sign-in, so anyone who can send it a request can read and change every project. Every HTTP request and
every WebSocket handshake must pass three checks before it reaches Streamlit:

- It arrives at a loopback address. `annotator serve --expose NAME` removes this check and names the allowed hosts.
- Its Host header is a loopback name with the app's port, or an exposed name. This stops DNS rebinding, where the name
  of a foreign site resolves to this machine: the browser still sends the name of that site.
- Its Origin and Sec-Fetch-Site headers, if present, name a page of the app. WebSockets and requests that change
  something must have an Origin.

Every response forbids embedding in frames of other sites and loading content from other hosts.
"""

import os
import re
from collections.abc import Awaitable, Callable, MutableMapping
from functools import partial
from ipaddress import ip_address
from typing import Any

from annotator.errors import AddressRefused, BadInput, Message

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Server = Callable[[Scope, Receive, Send], Awaitable[None]]

EXPOSED = "ANNOTATOR_EXPOSE"  # host names under which other machines may reach the app, separated by commas
_NAME = re.compile(r"(?:[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?|\[[0-9a-f:.]+\])(?::\d{1,5})?", re.IGNORECASE)
_HERE = ("localhost", "127.0.0.1", "[::1]")
_READING = ("GET", "HEAD", "OPTIONS")
_HEADERS = {
    # Streamlit and its charts compile code and add inline styles and scripts.
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
    """Return the host names under which other machines may reach the app. Raises BadInput."""
    return checked_names(os.environ.get(EXPOSED, "").split(","))


def checked_names(names: list[str]) -> frozenset[str]:
    """Return host names in lower case, each with or without a port. Raises BadInput."""
    given = [name.strip().lower() for name in names if name.strip()]
    for name in given:
        if not _NAME.fullmatch(name):
            raise BadInput(
                Message("“{name}” is not a host name.", name=name),
                "Use a name such as lab.example.org or 192.168.1.7:8501.",
            )
    return frozenset(given)


def refuse_open_address(address: str | None, names: frozenset[str]) -> None:
    """Raise AddressRefused if the address is reachable from other machines and no names are exposed."""
    if names or is_loopback(address):
        return
    raise AddressRefused(
        Message(
            "The app is not opened at {value}: anyone who can reach this machine could read and "
            "change all projects, because there is no sign-in.",
            value=address or "every address",
        ),
        Message(
            "Use 127.0.0.1. To open it anyway, run `annotator serve --address ADDRESS --expose "
            "NAME`, or set {exposed} to the host names under which it may be reached.",
            exposed=EXPOSED,
        ),
    )


def is_loopback(address: str | None) -> bool:
    """Return whether only this machine can reach an address. None or an empty string means all addresses."""
    if address == "localhost":
        return True
    try:
        return ip_address((address or "").strip("[]")).is_loopback
    except ValueError:
        return False


class Gate:
    """An ASGI middleware that refuses forbidden requests and adds security headers to responses."""

    def __init__(self, app: Server) -> None:
        self.app = app
        self.names = exposed()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request or handshake."""
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
        elif reason := why_refused(scope, self.names):
            await _refuse(scope, partial(_send_guarded, send), reason)
        else:
            await self.app(scope, receive, partial(_send_guarded, send))


def why_refused(scope: Scope, names: frozenset[str]) -> str:
    """Return the reason to refuse a request; empty if it is allowed."""
    address, port = scope.get("server") or ("", None)
    if not names and not is_loopback(address):
        return "This app can be reached only from the machine it runs on."
    hosts = _values(scope, b"host")
    if len(hosts) != 1 or not _is_ours(hosts[0], port, names):
        return f"This app cannot be reached under this name. Allow names with {EXPOSED}."
    origins = _values(scope, b"origin")
    needs_origin = scope["type"] == "websocket" or scope["method"] not in _READING
    if len(origins) > 1 or (needs_origin and not origins):
        return "This request does not name the page it comes from."
    if origins and origins[0] not in (f"http://{hosts[0]}", f"https://{hosts[0]}"):
        return "This request comes from a page of another site."
    sites, modes = _values(scope, b"sec-fetch-site"), _values(scope, b"sec-fetch-mode")
    if sites and sites[0] not in ("same-origin", "none") and modes != ["navigate"]:
        return "This request comes from a page of another site."
    return ""


def _values(scope: Scope, name: bytes) -> list[str]:
    return [value.decode("latin-1").strip().lower() for key, value in scope["headers"] if key.lower() == name]


def _is_ours(host: str, port: int | None, names: frozenset[str]) -> bool:
    """Return whether a Host header is a loopback name with our port, or an exposed name (any port if none is given)."""
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
