"""ASGI applications whose requests need places (see cloudbridge._Places)."""

from __future__ import annotations

from typing import Any

from . import _Claim

HELD = b"cloudbridge-held"


class Placed:
    """The application of one connection. A request without a place is given back to its proxy, or waits if that cannot take it
    back."""

    def __init__(self, app: Any, claim: _Claim) -> None:
        self._app = app
        self._claim = claim

    async def __call__(self, scope: Any, receive: Any, send: Any, *rest: Any) -> None:
        claim = self._claim
        if scope["type"] != "http":
            # What its handshake is answered with must not be divided by a message.
            claim.occupied()
            await self._app(scope, receive, send, *rest)
            return
        can_go_back = (HELD, b"no") not in scope["headers"]
        scope = {**scope, "headers": [field for field in scope["headers"] if field[0] != HELD]}
        if not claim.begin(can_go_back):
            if can_go_back:
                return await self._give_back(receive, send)
            await claim.wait_in_loop()
        is_complete = False
        # With trailers the end is known only when the application returns.
        has_trailers = False

        async def sending(message: Any) -> None:
            nonlocal is_complete, has_trailers
            await send(message)
            if message["type"] == "http.response.start":
                has_trailers = message.get("trailers", False)
            elif message["type"] == "http.response.body" and not message.get("more_body") and not has_trailers:
                is_complete = True
                claim.end(is_idle=True)

        try:
            await self._app(scope, receive, sending, *rest)
        finally:
            if not is_complete:
                claim.end(is_idle=False)

    async def _give_back(self, receive: Any, send: Any) -> None:
        # All of it comes, since the proxy holds it.
        while (message := await receive())["type"] == "http.request" and message.get("more_body"):
            pass
        if message["type"] != "http.request":
            return
        fields = [(name.lower().encode("ascii"), value.encode("ascii")) for name, value in self._claim.given_back()]
        await send({"type": "http.response.start", "status": 503, "headers": fields})
        await send({"type": "http.response.body", "body": b""})
        self._claim.idle()
