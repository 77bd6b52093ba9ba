"""Who the client is, for ASGI applications behind a proxy."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]
Application = Callable[[Any, Receive, Send], Awaitable[None]]


class Forwarded:
    """An ASGI application whose scopes name the client, and not the proxy. The servers' own means to that need a list of
    the proxies' addresses; here every peer is a proxy.

    `hops`: how many proxies append to X-Forwarded-For, cloudbridge included: the client is that many from its end. What is
    before comes from the client, which can write anything there."""

    def __init__(self, app: Application, hops: int) -> None:
        if hops < 1:
            raise ValueError("forwarded_hops is less than 1")
        self._app = app
        self._hops = hops

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        if scope["type"] in ("http", "websocket"):
            scope = described(scope, self._hops)
        await self._app(scope, receive, send)


def described(scope: Any, hops: int) -> Any:
    """A scope with the client and scheme of X-Forwarded-For and X-Forwarded-Proto."""
    fields = dict(scope["headers"])
    addresses = [one.strip() for one in fields.get(b"x-forwarded-for", b"").decode("latin-1").split(",") if one.strip()]
    if addresses:
        scope = {**scope, "client": (addresses[-min(hops, len(addresses))], 0)}
    scheme = fields.get(b"x-forwarded-proto", b"").decode("latin-1").lower()
    if scheme in ("http", "https"):
        if scope["type"] == "websocket":
            scheme = scheme.replace("http", "ws")
        scope = {**scope, "scheme": scheme}
    return scope
