"""gunicorn that needs no port: Flask, Django and every other WSGI application, on threads in several processes.

    BRIDGE_PROXIES=proxy.example.com:8079 BRIDGE_HOSTS=app.example.com \\
        gunicorn -c python:cloudbridge.gunicorn --workers 2 --threads 8 app:app

This module is both the worker class and the settings that go with it. With `-k cloudbridge.gunicorn` instead, gunicorn
also listens where `bind` says (127.0.0.1:8000), and both are served; `bind = []` in a file of settings turns that off.

Each worker keeps as many bridges at each proxy as `threads` says, and serves as many requests at once, whichever of several
proxies they come from. When a worker stops (SIGTERM, HUP for new code, --max-requests, --reload), its bridges are deregistered
first, and requests in flight and those that still come are served. SIGINT and SIGQUIT are gunicorn's quick stop, which cuts them
off.
"""

from __future__ import annotations

import sys
import threading
import types
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import Any

from gunicorn.workers.gthread import ThreadWorker

from . import GRACE, BridgeListener, _Claim, _listed, _place, _tls_of

# Settings of gunicorn, for `-c python:cloudbridge.gunicorn`.
worker_class = "cloudbridge.gunicorn.Worker"
bind: list[str] = []
threads = 8

# In seconds. gunicorn closes a connection on which nothing comes for so long, and a request may be on its way by then. The
# kernel finds out if the proxy is gone.
KEEP_ALIVE = 365 * 24 * 3600
# How much earlier than the master kills a worker, in seconds, the worker stops waiting for the proxies.
MARGIN = 2.0
# As gunicorn names the field that says whether the proxy can take the request back.
HELD = "CLOUDBRIDGE-HELD"
# How much of an unwanted body is read at once.
READ = 64 * 1024


class Worker(ThreadWorker):  # type: ignore[misc]
    """gunicorn's worker with threads, which accepts from proxies, too. The names, hosts and keys are in BRIDGE_PROXIES,
    BRIDGE_HOSTS and BRIDGE_KEYS, and what is needed for `tls://` proxies in BRIDGE_CA, BRIDGE_SERVER_NAME and
    BRIDGE_CLIENT_CERT."""

    _listener: BridgeListener | None = None
    _leaving = False
    _is_alive = True

    @classmethod
    def check_config(cls, cfg: Any, log: Any) -> None:
        """Ends gunicorn before it starts workers, which would fail one after another."""
        super().check_config(cfg, log)
        try:
            proxies = _listed(None, "BRIDGE_PROXIES")
            for name in proxies:
                _place(name)
            _tls_of(proxies, None, None, None)
        except ValueError as error:
            sys.exit(f"cloudbridge: {error}")
        if not proxies:
            sys.exit("cloudbridge: no proxies: set BRIDGE_PROXIES")

    @property
    def alive(self) -> bool:
        """What gunicorn looks at in each turn. A worker that is to stop, for whatever reason, goes on until the proxies have
        closed its bridges."""
        return self._is_alive

    @alive.setter
    def alive(self, value: bool) -> None:
        if value or self._listener is None:
            self._is_alive = value
        elif not self._leaving:
            self._leaving = True
            threading.Thread(target=self._leave, args=(self._listener,), daemon=True).start()

    def _leave(self, listener: BridgeListener) -> None:
        try:
            listener.leave(max(0.0, min(GRACE, self.cfg.graceful_timeout - MARGIN)))
        finally:
            self._is_alive = False

    def get_thread_pool(self) -> Any:
        pool = super().get_thread_pool()
        proxies = len(_listed(None, "BRIDGE_PROXIES"))
        return pool if proxies < 2 else _Pools(ThreadPoolExecutor(self.cfg.threads * proxies), pool)

    def run(self) -> None:
        self.cfg.set("keepalive", KEEP_ALIVE)
        listener = BridgeListener(connections=self.cfg.threads, counts=True)
        self.sockets: list[Any] = [*self.sockets, listener]
        self._listener = listener
        super().run()

    def _serve_from_port(self, serve: Any, *request: Any) -> Any:
        listener = self._listener
        claim = None if listener is None else listener.claim()
        if claim is None:
            return serve(*request)
        claim.wait()
        try:
            return serve(*request)
        finally:
            claim.free()

    def handle_http2_request(self, *request: Any) -> Any:
        # Only ports have HTTP/2.
        return self._serve_from_port(super().handle_http2_request, *request)

    def handle_request(self, req: Any, conn: Any) -> Any:
        claim = getattr(conn.sock, "claim", None)
        if claim is None:
            return self._serve_from_port(super().handle_request, req, conn)
        can_go_back = (HELD, "no") not in req.headers
        req.headers = [field for field in req.headers if field[0] != HELD]
        if not claim.begin(can_go_back):
            if can_go_back:
                return self._give_back(req, conn, claim)
            claim.wait()
        is_complete = False
        try:
            is_complete = super().handle_request(req, conn)
            return is_complete
        finally:
            claim.end(is_complete)

    @staticmethod
    def _give_back(req: Any, conn: Any, claim: _Claim) -> bool:
        # All of it comes: the proxy holds it, or will, and its client may wait for this.
        if any(name == "EXPECT" for name, _ in req.headers):
            conn.sock.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        while req.body.read(READ):
            pass
        conn.sock.sendall(claim.give_back())
        claim.idle()
        return True

    def handle_quit(self, sig: int, frame: Any) -> None:
        self._listener = None
        super().handle_quit(sig, frame)


class _Pools(Executor):
    """gunicorn's threads where several proxies share them. Each bridge has one, so that a request without a place is given back
    at once, or waits for one without keeping a thread from a request that has a place. Requests from a port have a pool of their
    own, and wait there for places."""

    def __init__(self, bridges: Executor, ports: Executor) -> None:
        self._bridges = bridges
        self._ports = ports

    def submit(self, handle: Any, conn: Any) -> Any:  # type: ignore[override]
        is_bridge = getattr(conn.sock, "claim", None) is not None
        return (self._bridges if is_bridge else self._ports).submit(handle, conn)

    def shutdown(self, wait: bool = True, **how: Any) -> None:
        self._bridges.shutdown(wait, **how)
        self._ports.shutdown(wait, **how)


class _Module(types.ModuleType):
    """What `-k cloudbridge.gunicorn` finds where it expects a class."""

    check_config = staticmethod(Worker.check_config)

    def __call__(self, *arguments: Any) -> Worker:
        return Worker(*arguments)


sys.modules[__name__].__class__ = _Module
