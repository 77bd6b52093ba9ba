"""uvicorn that needs no port: FastAPI, Starlette, Django and every other ASGI application.

    from cloudbridge.uvicorn import run

    run("app:app", ["proxy.example.com:8079"], ["app.example.com"], connections=16)

takes what `uvicorn.run` takes, too. On the command line:

    python -m cloudbridge.uvicorn app:app --proxy proxy.example.com:8079 --host app.example.com

The protocol classes of uvicorn get the connections, so everything that they can do works, WebSockets included. At SIGTERM or
SIGINT the bridges are deregistered, requests in flight and those that still come are served, and then uvicorn ends as usual.
"""

from __future__ import annotations

import argparse
import asyncio
import socket
import sys
from typing import Any

import uvicorn

from . import CONNECTIONS, GRACE, PING_INTERVAL, AsyncBridges, Names, Predicates, _Line
from ._forwarded import Forwarded
from ._places import Placed

__all__ = ["Server", "run"]

# In seconds. uvicorn closes a connection on which nothing comes for so long, and a request may be on its way by then. The
# kernel finds out if the proxy is gone.
KEEP_ALIVE = 365 * 24 * 3600


class Server(uvicorn.Server):
    """A uvicorn.Server whose connections come from proxies. It listens nowhere, unless `serve` is given sockets.

    Proxies, hosts and keys default to BRIDGE_PROXIES, BRIDGE_HOSTS and BRIDGE_KEYS. `connections`: bridges at each proxy,
    which is how many requests are served at once, of all proxies together if they know places. A WebSocket is not counted. `forwarded_hops`: how many proxies
    append to X-Forwarded-For, cloudbridge included. `ca`, `server_name`, `client_cert`: for `tls://` proxies, see
    cloudbridge.Tls."""

    def __init__(
        self,
        config: uvicorn.Config,
        proxies: Names | None = None,
        hosts: Names | None = None,
        keys: Names | None = None,
        *,
        connections: int = CONNECTIONS,
        prefix: str = "/",
        instance: str | None = None,
        predicates: Predicates | None = None,
        forwarded_hops: int = 1,
        ping_interval: float = PING_INTERVAL,
        bearer_keys: bool | None = None,
        ca: str | None = None,
        server_name: str | None = None,
        client_cert: tuple[str, str] | None = None,
    ) -> None:
        super().__init__(config)
        config.timeout_keep_alive = max(config.timeout_keep_alive, KEEP_ALIVE)
        # Forwarded does that.
        config.proxy_headers = False
        self._hops = forwarded_hops
        # By the numbers of their sockets.
        self._lines: dict[int, _Line] = {}
        self._bridges = AsyncBridges(
            self._give,
            proxies,
            hosts,
            keys,
            connections=connections,
            prefix=prefix,
            instance=instance,
            predicates=predicates,
            ping_interval=ping_interval,
            transfers=True,
            counts=True,
            bearer_keys=bearer_keys,
            ca=ca,
            server_name=server_name,
            client_cert=client_cert,
        )

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        config = self.config
        config.loaded_app = Forwarded(config.loaded_app, self._hops)
        if config.ws_protocol_class is not None:
            config.ws_protocol_class = self._not_counting(config.ws_protocol_class)
        await super().startup(sockets=sockets or [])
        if not self.should_exit:
            self._bridges.start()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        grace = self.config.timeout_graceful_shutdown
        leaving = asyncio.ensure_future(self._bridges.leave(GRACE if grace is None else grace))
        # A second SIGINT ends it at once.
        while not leaving.done() and not self.force_exit:
            await asyncio.wait([leaving], timeout=0.1)
        leaving.cancel()
        await self._bridges.cut()
        await super().shutdown(sockets=sockets)
        await self._bridges.flush()

    async def _give(self, line: _Line) -> None:
        """Gives a matched bridge to uvicorn, as if it had accepted it."""
        loop = asyncio.get_running_loop()

        def protocol() -> asyncio.Protocol:
            settings: dict[str, Any] = {"config": self.config, "server_state": self.server_state, "app_state": self.lifespan.state}
            made: asyncio.Protocol = self.config.http_protocol_class(**settings)
            if line.claim is not None:
                made.app = Placed(self.config.loaded_app, line.claim)  # type: ignore[attr-defined]
            return made

        async def connect() -> None:
            transport, _ = await loop.connect_accepted_socket(protocol, line)
            line.write = transport.write

        number = line.fileno()
        self._lines[number] = line
        try:
            await line.await_close(connect)
        finally:
            if self._lines.get(number) is line:
                del self._lines[number]

    def _not_counting(self, protocol: type[asyncio.Protocol]) -> type[asyncio.Protocol]:
        """The protocol of WebSockets, which frees the bridge for which it takes over."""
        lines = self._lines

        class Tunnel(protocol):  # type: ignore[valid-type, misc]
            def connection_made(self, transport: asyncio.BaseTransport) -> None:
                super().connection_made(transport)
                line = lines.get(transport.get_extra_info("socket").fileno())
                if line is not None:
                    line.release()

        return Tunnel


def run(
    app: Any,
    proxies: Names | None = None,
    hosts: Names | None = None,
    keys: Names | None = None,
    *,
    connections: int = CONNECTIONS,
    prefix: str = "/",
    instance: str | None = None,
    predicates: Predicates | None = None,
    forwarded_hops: int = 1,
    ping_interval: float = PING_INTERVAL,
    bearer_keys: bool | None = None,
    ca: str | None = None,
    server_name: str | None = None,
    client_cert: tuple[str, str] | None = None,
    **settings: Any,
) -> None:
    """As uvicorn.run, in one process and without a port. `app` is an application or where to import it from, and `settings`
    are those of uvicorn.Config. Returns after SIGTERM or SIGINT; see Server."""
    config = uvicorn.Config(app, **settings)
    server = Server(
        config,
        proxies,
        hosts,
        keys,
        connections=connections,
        prefix=prefix,
        instance=instance,
        predicates=predicates,
        forwarded_hops=forwarded_hops,
        ping_interval=ping_interval,
        bearer_keys=bearer_keys,
        ca=ca,
        server_name=server_name,
        client_cert=client_cert,
    )
    server.run(sockets=[])


def main(arguments: list[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m cloudbridge.uvicorn", description="uvicorn that needs no port")
    parser.add_argument("app", help="MODULE:NAME")
    parser.add_argument("--proxy", action="append", metavar="HOST[:8079]", help="repeatable; tls://HOST[:8443] by TLS; by default those of BRIDGE_PROXIES")
    parser.add_argument("--host", action="append", help="a name to serve, `*.` and a name, or `*`; repeatable; by default those of BRIDGE_HOSTS")
    parser.add_argument("--connections", type=int, default=CONNECTIONS, help="requests at once, shared by several proxies (%(default)s)")
    parser.add_argument("--prefix", default="/", help="only paths below this one")
    parser.add_argument("--instance", metavar="NAME", help="the name of this process, to which clients of a sticky site come back")
    parser.add_argument(
        "--predicate",
        action="append",
        default=[],
        metavar="If-NAME: VALUE",
        help="only requests of a certain kind, such as `If-Method: GET, HEAD`; repeatable",
    )
    parser.add_argument(
        "--bearer-keys",
        action="store_true",
        default=None,
        help="send host keys as they are, as the original proxy and old versions need them, and do not prove them",
    )
    parser.add_argument("--forwarded-hops", type=int, default=1, help="proxies that append to X-Forwarded-For (%(default)s)")
    parser.add_argument("--ca", metavar="FILE", help="the issuers that a tls:// proxy's certificate may be from (those of the system)")
    parser.add_argument("--server-name", metavar="NAME", help="the name that it must be for (the one that is dialled)")
    parser.add_argument("--client-cert", metavar="CERT,KEY", help="a certificate and its private key, for tls:// proxies that ask")
    parser.add_argument("--app-dir", default=".", help="where to look for the module (the working directory)")
    parser.add_argument("--factory", action="store_true", help="NAME is a function that makes the application")
    parser.add_argument("--log-level", default=None, help="critical, error, warning, info, debug or trace")
    parser.add_argument("--no-access-log", action="store_false", dest="access_log", help="no line for each request")
    given = parser.parse_args(arguments)
    predicates: dict[str, list[str]] = {}
    for predicate in given.predicate:
        name, _, value = predicate.partition(": ")
        predicates.setdefault(name, []).append(value)
    client_cert = None
    if given.client_cert is not None:
        certificate, comma, key = given.client_cert.partition(",")
        if not comma:
            parser.error("--client-cert is CERT,KEY")
        client_cert = (certificate, key)
    sys.path.insert(0, given.app_dir)
    try:
        run(
            given.app,
            given.proxy,
            given.host,
            connections=given.connections,
            prefix=given.prefix,
            instance=given.instance,
            predicates=predicates,
            forwarded_hops=given.forwarded_hops,
            bearer_keys=given.bearer_keys,
            ca=given.ca,
            server_name=given.server_name,
            client_cert=client_cert,
            factory=given.factory,
            log_level=given.log_level,
            access_log=given.access_log,
        )
    except ValueError as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
