"""hypercorn that needs no port: ASGI applications (FastAPI, Django, Quart) and WSGI applications under asyncio.

    import asyncio
    from hypercorn.config import Config
    from cloudbridge.hypercorn import serve

    asyncio.run(serve(app, Config(), ["proxy.example.com:8079"], ["app.example.com"], connections=16))

It is called as `hypercorn.asyncio.serve` is. WebSockets work. At SIGTERM or SIGINT, or when `shutdown_trigger` returns, the
bridges are deregistered, and requests in flight and those that still come are served.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any, Literal

from hypercorn.asyncio.lifespan import Lifespan
from hypercorn.asyncio.tcp_server import TCPServer
from hypercorn.asyncio.worker_context import WorkerContext
from hypercorn.config import Config
from hypercorn.utils import wrap_app

from . import BUFFER, CONNECTIONS, LINGER, PING_INTERVAL, AsyncBridges, Names, Predicates, _Line, _StopSignals
from ._forwarded import described
from ._places import Placed

__all__ = ["serve"]

# In seconds. hypercorn closes a connection on which nothing comes for so long, and a request may be on its way by then. The
# kernel finds out if the proxy is gone.
KEEP_ALIVE = 365 * 24 * 3600


async def serve(
    app: Any,
    config: Config,
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
    shutdown_trigger: Callable[..., Awaitable[object]] | None = None,
    mode: Literal["asgi", "wsgi"] | None = None,
) -> None:
    """Serves `app` with hypercorn's settings. Nothing listens: its `bind` is not used.

    Proxies, hosts and keys default to BRIDGE_PROXIES, BRIDGE_HOSTS and BRIDGE_KEYS. `connections`: bridges at each proxy,
    which is how many requests are served at once, of all proxies together if they know places. A WebSocket is not counted. `forwarded_hops`: how many proxies
    append to X-Forwarded-For, cloudbridge included. `ca`, `server_name`, `client_cert`: for `tls://` proxies, see
    cloudbridge.Tls. Signals are left alone if there is a `shutdown_trigger`."""
    config.keep_alive_timeout = max(config.keep_alive_timeout, KEEP_ALIVE)
    wrapped = wrap_app(app, config.wsgi_max_body_size, mode)
    loop = asyncio.get_running_loop()
    context = WorkerContext(config.max_requests)
    state: dict[str, Any] = {}

    async def give(line: _Line) -> None:
        async def use() -> None:
            own = _Context(context)
            contexts.add(own)
            reader = _Reader(own)
            transport, protocol = await loop.connect_accepted_socket(lambda: asyncio.StreamReaderProtocol(reader), line)
            writer = asyncio.StreamWriter(transport, protocol, reader, loop)
            line.write = writer.write
            counted: Any = _Counted(wrapped, forwarded_hops, line)
            if line.claim is not None:
                counted = Placed(counted, line.claim)
            try:
                await TCPServer(counted, loop, config, own, state, reader, writer)
            finally:
                contexts.discard(own)
                writer.close()
                with contextlib.suppress(OSError, asyncio.TimeoutError):
                    await asyncio.wait_for(writer.wait_closed(), LINGER)

        served.add(task := loop.create_task(use()))
        task.add_done_callback(served.discard)

        async def begun() -> None:
            """The connection is closed by the task."""

        await line.await_close(begun)

    served: set[asyncio.Task[None]] = set()
    contexts: set[_Context] = set()
    bridges = AsyncBridges(
        give,
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
    lifespan = Lifespan(wrapped, config, loop, state)
    running = loop.create_task(lifespan.handle_lifespan())
    await lifespan.wait_for_startup()
    if running.done() and (error := running.exception()) is not None:
        raise error
    stopped = asyncio.Event()
    stops = _StopSignals(stopped.set)
    if shutdown_trigger is None:
        for number in stops.NUMBERS:
            loop.add_signal_handler(number, stops.came, number)
    ends = [loop.create_task(_result_of(one)) for one in (shutdown_trigger or stopped.wait, context.terminate.wait)]
    try:
        bridges.start()
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        await bridges.leave(config.graceful_timeout)
    finally:
        for end in ends:
            end.cancel()
        await bridges.cut()
        # Tells what is left, WebSockets among it, that the server ends.
        for own in contexts:
            await own.terminated.set()
        if served:
            _, late = await asyncio.wait(served, timeout=config.graceful_timeout)
            for task in late:
                task.cancel()
        await bridges.flush()
        await lifespan.wait_for_shutdown()
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running
        if shutdown_trigger is None:
            for number in stops.NUMBERS:
                loop.remove_signal_handler(number)


async def _result_of(trigger: Callable[..., Awaitable[object]]) -> None:
    await trigger()


class _Context(WorkerContext):
    """What hypercorn asks whether it ends, for one connection."""

    def __init__(self, whole: WorkerContext) -> None:
        super().__init__(None)
        self._whole = whole
        self.terminate = whole.terminate

    async def mark_request(self) -> None:
        await self._whole.mark_request()


class _Reader(asyncio.StreamReader):
    """Ends an idle connection when the proxy has closed it: hypercorn itself would wait for its keep-alive timeout."""

    def __init__(self, context: _Context) -> None:
        super().__init__(limit=BUFFER)
        self._context = context
        self._ending: asyncio.Task[None] | None = None

    def feed_eof(self) -> None:
        super().feed_eof()
        self._ending = asyncio.get_running_loop().create_task(self._context.terminated.set())


class _Counted:
    """The application of one connection. A WebSocket that is accepted frees its bridge."""

    def __init__(self, app: Any, hops: int, line: _Line) -> None:
        self._app = app
        self._hops = hops
        self._line = line

    async def __call__(self, scope: Any, receive: Any, send: Any, *rest: Any) -> None:
        if scope["type"] == "websocket":
            await self._app(described(scope, self._hops), receive, self._releasing(send), *rest)
        elif scope["type"] == "http":
            await self._app(described(scope, self._hops), receive, send, *rest)
        else:
            await self._app(scope, receive, send, *rest)

    def _releasing(self, send: Any) -> Any:
        async def sending(message: Any) -> None:
            await send(message)
            if message["type"] == "websocket.accept":
                self._line.release()

        return sending
