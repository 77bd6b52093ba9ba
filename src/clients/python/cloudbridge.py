"""cloudbridge for Python (3.9 or later, no packages): web applications that have no port.

A WSGI application, on threads:

    from cloudbridge import serve_wsgi

    def app(environ, start_response):
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b"hello\\n"]

    serve_wsgi(app, ["proxy.example.com:8079"], hosts=["app.example.com"], threads=8)

Or anything else, with asyncio: the handler gets a connection whose next bytes are a request, as with asyncio.start_server:

    import asyncio
    from cloudbridge import serve_asyncio

    async def handler(reader, writer):
        chunked = False
        while not chunked:
            head = (await reader.readuntil(b"\\r\\n\\r\\n")).lower()    # raises IncompleteReadError at the end
            # Read the body, or close: otherwise it would be taken for the next request.
            length = head.partition(b"\\r\\ncontent-length:")[2].partition(b"\\r\\n")[0]
            await reader.readexactly(int(length or 0))
            chunked = b"\\r\\ntransfer-encoding:" in head
            connection = b"close" if chunked else b"keep-alive"
            writer.write(b"HTTP/1.1 200 OK\\r\\nConnection: %s\\r\\nContent-Length: 6\\r\\n\\r\\nhello\\n" % connection)
            await writer.drain()

    asyncio.run(serve_asyncio(handler, ["proxy.example.com:8079"], hosts=["app.example.com"]))

BridgeListener stands in for the listening socket of a server on threads. Installed with pip (see README.md), the package also
feeds uvicorn, hypercorn and gunicorn.

All dial each proxy, register for the hosts and keep bridges there, until their end (for the first two, SIGTERM or SIGINT): then
they deregister without losing a request. Each bridge carries one request at a time. Several proxies share the number of requests
at once, if they know places. A proxy is `host:port`, or `host` for port 8079, resolved at each dial. The defaults are in BRIDGE_PROXIES, BRIDGE_HOSTS and BRIDGE_KEYS, separated by commas; without any host it is `*`.
Keys are proven to the proxy and not sent. The original proxy and old versions need them as they are, and everybody on the way
can then use them: `bearer_keys=True`, or BRIDGE_BEARER_KEYS=yes, allows that.
After `tls://` a proxy is dialled by TLS, at port 8443 unless another is given. For such proxies there are `ca`, `server_name` and
`client_cert` (or BRIDGE_CA, BRIDGE_SERVER_NAME and BRIDGE_CLIENT_CERT); see Tls.
Messages to the operator are written to the logger `cloudbridge`.

The protocol is in doc/protocol.md. This is one file so that it can be copied into a program.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import email.utils
import enum
import functools
import hashlib
import hmac
import importlib
import io
import logging
import math
import os
import random
import re
import secrets
import select
import signal
import socket
import ssl
import sys
import threading
import time
import urllib.parse
import wsgiref.util
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NoReturn, Optional, Union

if TYPE_CHECKING:
    from types import FrameType, TracebackType

__all__ = ["AsyncBridges", "BridgeListener", "WsgiServer", "serve_asyncio", "serve_wsgi"]

if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        """For `gunicorn -k cloudbridge.gunicorn`: gunicorn imports only what is before the last point."""
        if name == "gunicorn" and "__path__" in globals():
            return importlib.import_module("cloudbridge.gunicorn")
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


# One name, or several.
Names = Union[str, Sequence[str]]
# The names of `If-*` fields, each with one value or several.
Predicates = Mapping[str, Names]
# As a socket names its peer. It has two parts with IPv4, and four with IPv6.
Address = Any
# What sys.exc_info returns, as start_response of PEP 3333 takes it.
ExcInfo = Optional["tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None]"]
WsgiApplication = Callable[..., Iterable[bytes]]

log = logging.getLogger("cloudbridge")

# The version of this module, which is that of the proxy it came with.
VERSION = "0.2.0"

DEFAULT_PORT = 8079
# In front of the address of a proxy that is dialled by TLS, and its default port.
TLS = "tls://"
DEFAULT_TLS_PORT = 8443
# The default number of requests at once. More threads rarely make a Python program faster.
THREADS = 8
CONNECTIONS = 16
# All times are in seconds. The default ping interval of a proxy, and how many pings may be missed before it counts as gone:
# one may be late, two may be bad luck.
PING_INTERVAL = 15.0
MISSED_PINGS = 3
# How long one address may take to answer a connect, and a proxy to answer a BRIDGE.
CONNECT_WITHIN = 5.0
ANSWER_WITHIN = 10.0
# How long requests in flight may take at shutdown. Service managers wait three times that before they kill.
GRACE = 30.0
# The first pause after a failure; it doubles up to the longest, which is short: a missing bridge is missing capacity.
FIRST_WAIT = 0.05
LONGEST_WAIT = 1.0
# The pause after a refusal, or when the proxy cannot be trusted: an operator has to fix the key or the certificate.
REFUSED_WAIT = 30.0
# The pause after "too many bridges" without Retry-After, and the longest with it.
FULL_WAIT = 5.0
LONGEST_FULL_WAIT = 60.0
# An unused bridge that is closed so soon after it was accepted counts as a failure.
SHORT_LIFE = 1.0
# The proxy gives a bridge half a second to acknowledge a match. Without a free slot within this time, the request is sent to
# another bridge.
READY_WITHIN = 0.3
# How long a bridge may be idle, or a body may stall. Announced in Keep-Alive, so that no request is on its way by then; a
# proxy whose machine is gone is noticed after this time at the latest.
IDLE = 60
# Signals to stop within this time count as one: process managers and shells often send two.
ONE_STOP = 0.5
# How long the proxy may take to close after us. Until then its bytes are discarded, because closing with unread bytes resets
# the connection, and the end of the response might be lost.
LINGER = 5.0
# Of places. How much longer another proxy must have waited to get the place that a proxy which waits, too, gives up.
STAYS = 0.014
# How long a place is kept for a proxy that waits: more than the way there and back.
PROMISED = 0.01
# How long it is kept at most for one that is far away.
LONGEST_PROMISE = 0.25
# How often in a row a request must have come too late for its promise before promises to its proxy last longer.
LATE = 3
# How many times in a row what a proxy has said is doubted for twice as long as before.
DOUBLINGS = 5
# How long a place must be free before a proxy that was full is told: one that is taken again at once is not news.
WINDOW = 0.001
# How long there must be no place before a proxy is told: most requests do not take longer.
FULL_FOR = 0.002
# What matters less is told once in this time at most.
PAUSE = 0.01
# How long a place is kept for the request behind a 101: there may be none, if the proxy only wants to know who is there.
EXPECTED = 0.1
# Most bytes of an answer to BRIDGE, and of a request's head. A proxy takes 16 KiB of head from a client and adds a few fields.
MAX_ANSWER = 8 * 1024
MAX_HEAD = 64 * 1024
# Most bytes of a line between chunks, extensions included.
MAX_CHUNK_LINE = 4 * 1024
# Most bytes of a body that are discarded to keep the bridge if the application has not read them.
MAX_DRAINED = 256 * 1024
# Most bytes of one record of TLS (RFC 8446, section 5.1).
RECORD = 16 * 1024
# Bytes read at once, and the largest piece of a body that is sent together with the head.
BUFFER = 64 * 1024
# Most characters of a refusal that are printed.
MAX_REASON = 256

HTTP = b"HTTP/1."
ACK = b"HTTP/1.1 100 Continue\r\n\r\n"
# Sent before the application is given a request that must not be sent twice. If we are killed before, another backend gets it.
RECEIPT = b"HTTP/1.1 102 Processing\r\nCloudbridge-Receipt: application\r\n\r\n"
# Said of a proxy that refuses keys without their hashes.
UNASKED = (
    " (it did not ask for a proof of the host keys; the original and old versions do not, and bearer_keys sends them the keys as they are)"
)
REPEATABLE = frozenset(["GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"])
# How everything begins that a proxy says between two requests; no request begins like that. And how a 101 begins.
SAID = "HTTP/1.1 10"
SWITCH = "HTTP/1.1 101 "
# Most fields that a proxy takes in a BRIDGE.
MAX_FIELDS = 100


class Stage(enum.Enum):
    """The states of a bridge. Only in ACCEPTED and SERVING a request could be lost."""

    DIALLING = "the connect, and the BRIDGE that the proxy has not answered yet"
    PARKED = "accepted, and not matched yet"
    ACCEPTED = "acknowledged, and the request is on its way"
    SERVING = "a request is with the application"
    IDLE = "it has served, and waits for the next request"
    CLOSED = "closed, or about to be"


class _Refused(Exception):
    """A final answer to BRIDGE."""

    def __init__(self, status: int, reason: str, retry_after: int, parked: bool) -> None:
        super().__init__(f"{status} {reason}")
        self.status = status
        self.retry_after = retry_after
        # Whether the bridge had been accepted: 504 then means to dial again.
        self.parked = parked


def _listed(given: Names | None, name: str) -> list[str]:
    if given is None:
        given = os.environ.get(name, "").split(",")
    elif isinstance(given, str):
        given = [given]
    return [one.strip() for one in given if one.strip()]


def _several(given: Names) -> list[str]:
    return [given] if isinstance(given, str) else list(given)


class _Offer:
    """The registration. It contains the keys, so it has no repr of its own."""

    def __init__(
        self,
        hosts: Names | None,
        keys: Names | None,
        prefix: str,
        bearer_keys: bool | None,
        instance: str | None,
        predicates: Predicates | None,
    ) -> None:
        hosts = _listed(hosts, "BRIDGE_HOSTS") or ["*"]
        keys = _listed(keys, "BRIDGE_KEYS")
        # No part may contain a line end.
        for host in hosts:
            if not re.fullmatch(r"[!-~]+", host):
                raise ValueError(f"bad host {host!r}")
        if not re.fullmatch(r"/[!-~]*", prefix):
            raise ValueError(f"bad prefix {prefix!r}")
        if not all(re.fullmatch(r"[!-~]+", key) for key in keys):
            raise ValueError("bad host key")
        demands = [f"{name}: {value}" for name, values in (predicates or {}).items() for value in _several(values)]
        for line in demands:
            if not re.fullmatch(r"(?i:If-[a-z-]+): [ -~]+", line):
                raise ValueError(f"bad predicate {line!r}")
        if instance is not None and not re.fullmatch(r"[!-~]{1,128}", instance):
            raise ValueError(f"bad instance {instance!r}")
        lines = [f"BRIDGE {prefix} HTTP/1.1"]
        lines += [f"Host: {host}" for host in hosts]
        lines += [f"Host-Key: {key}" for key in keys]
        lines += demands
        lines += [] if instance is None else [f"Cloudbridge-Instance: {instance}"]
        self._lines = lines
        # A key that begins with a colon proves nothing, but names us in statistics.
        secret = [f"Host-Key: {key}" for key in keys if not key.startswith(":")]
        self._proves = not _bearer_keys_allowed(bearer_keys) and bool(secret)
        # What is no key might be one with a slip of the pen, and must not be sent.
        if self._proves and not all(WITH_HASH.fullmatch(line) for line in secret):
            raise ValueError("bad host key")
        if self._proves and len(lines) > MAX_FIELDS - 1:
            raise ValueError("too many hosts, keys and predicates")

    def with_field(self, *fields: str) -> _Registration:
        """The BRIDGE request with more fields, for one connection; the last ones are left out if there is no room for them."""
        room = max(1, MAX_FIELDS + 1 - len(self._lines) - int(self._proves))
        return _Registration([*self._lines, *fields[:room]], self._proves)


# A Host-Key line with a hash: what is before it, the hash, and what is behind it.
WITH_HASH = re.compile(r"(Host-Key: (?:v[0-9]+:)?)([0-9A-Fa-f]+)(:.*)")


def _bearer_keys_allowed(given: bool | None) -> bool:
    if given is not None:
        return given
    word = os.environ.get("BRIDGE_BEARER_KEYS", "")
    if word not in ("", "yes", "no"):
        raise ValueError("BRIDGE_BEARER_KEYS is yes or no")
    return word == "yes"


class _Registration:
    """A BRIDGE request on one connection. Keys are not sent but proven (doc/protocol.md, "Proof of keys"): the first request
    names them without their hashes, and when the proxy has answered with a nonce, the second has the proofs. It contains the
    keys, so it has no repr of its own."""

    def __init__(self, lines: list[str], proves: bool) -> None:
        self._lines = lines
        # Our nonce; None when no nonce is asked for, or it has come.
        self._own = secrets.token_hex(16) if proves else None
        # What is sent first.
        self.first = self._with(lambda _: "proof")

    @property
    def asks(self) -> bool:
        """Whether the proxy is asked for a nonce that has not come yet."""
        return self._own is not None

    def prove(self, nonce: str) -> bytes:
        """What is sent after the proxy's nonce."""
        # The empty line is for what could tie the proof to its connection; nothing does.
        signed = f"cloudbridge-proof-1\n{nonce}\n\n{hashlib.sha256(self.first).hexdigest()}\n".encode("ascii")
        second = self._with(lambda digits: "proof-" + hmac.new(digits.lower().encode("ascii"), signed, "sha256").hexdigest())
        self._own = None
        return second

    def _with(self, put: Callable[[str], str]) -> bytes:
        lines = self._lines
        if self._own is not None:
            lines = [WITH_HASH.sub(lambda parts: parts[1] + put(parts[2]) + parts[3], line) for line in lines]
            lines.append(f"Cloudbridge-Nonce: {self._own}")
        return ("\r\n".join(lines) + "\r\n\r\n").encode("ascii")


def _place(proxy: str) -> tuple[str, int]:
    """Host and port of `host:port`, `host`, `[v6]:port`, `[v6]` or a bare IPv6 address, each with or without `tls://`."""
    usual = DEFAULT_TLS_PORT if proxy.startswith(TLS) else DEFAULT_PORT
    address = proxy[len(TLS) :] if proxy.startswith(TLS) else proxy
    if "://" in address:
        raise ValueError(f"bad proxy {proxy!r}: this is a URL; write only its host and port")
    if address.count(":") > 1 and not address.startswith("["):
        return address, usual
    parts = re.fullmatch(r"(?:\[([^\]\s]+)\]|([^:\[\]\s/]+))(?::([0-9]{1,5}))?", address)
    port = int(parts[3] or usual) if parts else 0
    if parts is None or not 1 <= port <= 65535:
        raise ValueError(f"bad proxy {proxy!r}")
    return parts[1] or parts[2], port


# What is wrong with a certificate, by OpenSSL's numbers (X509_V_ERR_...).
_UNKNOWN_ISSUER = "its certificate is from an issuer that is not trusted here"
_DISTRUST = {
    2: _UNKNOWN_ISSUER,
    9: "its certificate is not valid yet, or this machine's clock is wrong",
    10: "its certificate has expired, or this machine's clock is wrong",
    18: _UNKNOWN_ISSUER,
    19: _UNKNOWN_ISSUER,
    20: _UNKNOWN_ISSUER,
    21: _UNKNOWN_ISSUER,
    27: _UNKNOWN_ISSUER,
}
# A wrong name, and a wrong IP address.
_WRONG_NAME = (62, 64)


class Tls:
    """How `tls://` proxies are dialled. `ca`: the file of the issuers that their certificates may be from, by default those that
    this machine trusts. `server_name`: the name that they must be for, by default the one that is dialled. `client_cert`: the
    files of our own certificate and its private key, for proxies that ask for one. All in PEM.

    The files are read when this is made, and again when a proxy cannot be trusted or does not trust us. Raises ValueError, with
    one sentence, for files that cannot be read or used."""

    def __init__(self, ca: str | None = None, server_name: str | None = None, client_cert: tuple[str, str] | None = None) -> None:
        if client_cert is not None and (isinstance(client_cert, str) or len(client_cert) != 2):
            raise ValueError("client_cert is not the names of two files, (certificate, key)")
        if server_name is not None and not re.fullmatch(r"[0-9A-Za-z_.:-]+", server_name):
            raise ValueError(f"bad server_name {server_name!r}")
        self._ca, self.server_name, self._client_cert = ca, server_name, client_cert
        self._context = self._read()
        self._stale = False

    def _read(self) -> ssl.SSLContext:
        try:
            context = ssl.create_default_context(cafile=self._ca)
        except OSError as error:
            raise ValueError(f"cannot use {self._ca}: {_reason(error)}") from None
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        # An issuer in the file need not be one that has issued itself. Python has the flag since 3.10.
        context.verify_flags |= getattr(ssl, "VERIFY_X509_PARTIAL_CHAIN", 0)
        context.set_alpn_protocols(["http/1.1"])
        if self._client_cert is not None:
            try:
                context.load_cert_chain(*self._client_cert)
            except OSError as error:
                raise ValueError(f"cannot use {' and '.join(self._client_cert)}: {_reason(error)}") from None
        return context

    def forget(self) -> None:
        """The files are read again for the next attempt: one of them may have been corrected by then."""
        self._stale = True

    def _current(self) -> ssl.SSLContext:
        if self._stale:
            self._stale = False
            # If they cannot be read, what was read before is used.
            with contextlib.suppress(ValueError):
                self._context = self._read()
        return self._context

    def name(self, host: str) -> str:
        """The name that the certificate of the proxy at `host` must be for."""
        return self.server_name or host

    def wrap(self, line: socket.socket, host: str) -> ssl.SSLSocket:
        """An encrypted connection to the proxy at `host`, whose handshake is done."""
        return self._current().wrap_socket(line, server_hostname=self.name(host))

    def session(self, host: str) -> tuple[ssl.SSLObject, ssl.MemoryBIO, ssl.MemoryBIO]:
        """The same without a socket: what comes is written to the first buffer, and what is to be sent is in the second."""
        came, sent = ssl.MemoryBIO(), ssl.MemoryBIO()
        return self._current().wrap_bio(came, sent, server_hostname=self.name(host)), came, sent


def _reason(error: OSError) -> str:
    reason = getattr(error, "reason", None)
    return str(reason).replace("_", " ").lower() if reason else str(error.strerror or error)


def _tls_of(names: list[str], ca: str | None, server_name: str | None, client_cert: tuple[str, str] | None) -> Tls | None:
    """For these proxies; None if none of them is dialled by TLS."""
    if not any(name.startswith(TLS) for name in names):
        if (ca, server_name, client_cert) != (None, None, None):
            raise ValueError(f"ca, server_name and client_cert are for proxies that begin with {TLS}")
        return None
    if client_cert is None and (listed := _listed(None, "BRIDGE_CLIENT_CERT")):
        if len(listed) != 2:
            raise ValueError("BRIDGE_CLIENT_CERT is not CERTIFICATE,KEY")
        client_cert = (listed[0], listed[1])
    return Tls(ca or os.environ.get("BRIDGE_CA") or None, server_name or os.environ.get("BRIDGE_SERVER_NAME") or None, client_cert)


def _distrust(error: object, name: str) -> str | None:
    """Why it would not help to dial again at once; None if it may."""
    # These mean that the connection has ended.
    if not isinstance(error, ssl.SSLError) or isinstance(error, (ssl.SSLEOFError, ssl.SSLZeroReturnError)):
        return None
    if not isinstance(error, ssl.SSLCertVerificationError):
        return _reason(error)
    if error.verify_code in _WRONG_NAME:
        return f"its certificate is not for {name}"
    return _DISTRUST.get(error.verify_code) or f"its certificate is not valid: {error.verify_message}"


class _Pace:
    """When a proxy may be dialled, and the last message about it. The owner holds a lock."""

    def __init__(self, name: str, tls: Tls | None) -> None:
        self.name = name
        self._tls = tls
        self._failures = 0
        self._not_before = 0.0
        # Whether the proxy has accepted a bridge since the last failure. If not, it is tried with one.
        self._proven = False
        self._trying = 0
        # The last message: it is not repeated.
        self._said: object = None

    def admit(self) -> float | None:
        """None if one bridge may be dialled now, which is then counted as tried; otherwise in how many seconds to try again,
        at the latest."""
        wait = self._not_before - time.monotonic()
        if wait > 0:
            return wait
        if not self._proven and self._trying:
            return LONGEST_FULL_WAIT
        self._trying += 1
        return None

    def accepted(self) -> None:
        self._trying -= 1
        self._failures = 0
        self._proven = True
        # A proxy with a limit refuses the excess bridges again and again.
        if self._said != 503:
            self._said = None

    def ended(self, error: object, parked_at: float | None, used: bool) -> None:
        """A bridge is closed: `error` is why, `parked_at` when it was accepted, if it was."""
        if parked_at is None:
            self._trying -= 1
        if used:
            return
        if isinstance(error, _Refused) and error.status == 504 and error.parked:
            self._pause(random.random() * FIRST_WAIT)
        elif isinstance(error, _Refused) and error.status != 504:
            self._refused(error)
        elif parked_at is None and self._tls and (why := _distrust(error, self._tls.name(_place(self.name)[0]))):
            self._tls.forget()
            self._pause(REFUSED_WAIT + random.random() * FIRST_WAIT)
            self._say(why, "no bridge to %s: %s; it is tried again every %g s", self.name, why, REFUSED_WAIT)
        elif parked_at is None or time.monotonic() - parked_at < SHORT_LIFE:
            self._failed(error)
        else:
            self._pause(random.random() * FIRST_WAIT)

    def _failed(self, error: object) -> None:
        # Simultaneous failures count as one.
        if time.monotonic() >= self._not_before:
            self._failures += 1
            wait = min(FIRST_WAIT * 2 ** min(self._failures - 1, 16), LONGEST_WAIT)
            self._pause(wait * (1 - random.random() / 2))
        self._say("unreachable", "no bridge to %s: %s; trying again", self.name, error)

    def _refused(self, error: _Refused) -> None:
        wait = REFUSED_WAIT
        if error.status == 503:
            wait = min(error.retry_after or FULL_WAIT, LONGEST_FULL_WAIT)
        self._pause(wait + random.random() * FIRST_WAIT)
        line = "%s refused the bridge: %s; asking again every %g s"
        self._say(error.status, line, self.name, error, wait)

    def _pause(self, wait: float) -> None:
        self._proven = False
        self._not_before = max(self._not_before, time.monotonic() + wait)

    def _say(self, what: object, line: str, *args: object) -> None:
        if self._said != what:
            self._said = what
            log.warning(line, *args)


class _Proxy:
    """A proxy, the token of our bridges there, and the addresses that support deregistration."""

    def __init__(self, name: str, offer: _Offer, tls: Tls | None, *extensions: str) -> None:
        self.place = _place(name)
        self.tls = tls if name.startswith(TLS) else None
        self.pace = _Pace(name, self.tls)
        token = secrets.token_hex(16)
        about = [f"Cloudbridge-Extensions: {', '.join(extensions)}"] if extensions else []
        self.token = token
        self._offer = offer
        self._fields = [f"Cloudbridge-Backend: {token}", *about, f"User-Agent: cloudbridge-python/{VERSION}"]
        self._leaving = f"Cloudbridge-Leave: {token}"

    def registration(self) -> _Registration:
        """For one connection."""
        return self._offer.with_field(*self._fields)

    def encrypted(self, line: socket.socket) -> socket.socket:
        """This connection to the proxy, within TLS if it is dialled so."""
        if self.tls is None:
            return line
        try:
            return self.tls.wrap(line, self.place[0])
        except BaseException:
            line.close()
            raise

    def left(self, address: Address) -> bool:
        """Asks the proxy process at this address to close our bridges; true if it agrees."""
        registration = self._offer.with_field(self._leaving)
        try:
            with self.encrypted(socket.create_connection(address[:2], CONNECT_WITHIN)) as line:
                line.settimeout(ANSWER_WITHIN)
                line.sendall(registration.first)
                with line.makefile("rb") as lines:
                    answer = _Answer(_read_head(lines))
                    if registration.asks and answer.nonce is not None:
                        line.sendall(registration.prove(answer.nonce))
                        answer = _Answer(_read_head(lines))
                    return answer.status == 200
        except OSError:
            return False


class _Answer:
    """The head of an answer to BRIDGE."""

    def __init__(self, head: bytes) -> None:
        first, *rest = head.decode("latin-1").rstrip("\r\n").split("\r\n")
        parts = re.fullmatch(r"HTTP/1\.[01] ([0-9]{3})(?: (.*))?", first)
        if parts is None:
            raise OSError("the peer is not a proxy")
        self.status = int(parts[1])
        self.phrase = parts[2] or ""
        self._lines = rest

    def field(self, name: str) -> str:
        for line in self._lines:
            key, _, value = line.partition(":")
            if key.lower() == name:
                return value.strip()
        return ""

    @classmethod
    def between(cls, lines: list[str]) -> _Answer:
        """What a proxy says between two requests."""
        return cls("\r\n".join(lines).encode("latin-1"))

    def number(self, name: str) -> int:
        text = self.field(name)
        return int(text) if re.fullmatch(r"[0-9]{1,9}", text) else 0

    def lets(self, extension: str) -> bool:
        """Whether the proxy supports it."""
        return extension in [word.strip() for word in self.field("cloudbridge-extensions").split(",")]

    @property
    def nonce(self) -> str | None:
        """With which the keys are to be proven."""
        nonce = self.field("cloudbridge-nonce")
        asks = self.status == 401 and self.field("content-length") == "0"
        return nonce if asks and re.fullmatch(r"[0-9a-f]{32}", nonce) else None

    def refusal(self, body: bytes, parked: bool, registration: _Registration) -> _Refused:
        line = body.split(b"\n")[0].decode("utf-8", "replace").strip() or self.phrase
        reason = "".join(c if c.isprintable() else "?" for c in line[:MAX_REASON])
        if registration.asks and not parked and self.status in (400, 401):
            reason += UNASKED
        return _Refused(self.status, reason, self.number("retry-after"), parked)


def _read_head(lines: io.BufferedReader) -> bytes:
    """The head of an answer."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        line = lines.readline(MAX_ANSWER)
        head += line
        if not line:
            raise OSError("the proxy closed the connection")
        if len(head) > MAX_ANSWER or not head.startswith(HTTP):
            raise OSError("the peer is not a proxy")
    return head


def _set_options(line: socket.socket) -> None:
    """No delay for small writes. The kernel detects a dead peer, because a bridge that has served a request gets no
    pings. There is no TCP_USER_TIMEOUT: it would also end a connection whose peer is there but does not read."""
    line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    line.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (("TCP_KEEPIDLE", 15), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 3)):
        if hasattr(socket, name):
            line.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def _has_bytes(line: socket.socket | None) -> bool:
    """Whether an idle bridge has received bytes of a request that its thread has not seen yet."""
    waiting = select.poll()
    if line is not None:
        waiting.register(line, select.POLLIN)
    return bool(waiting.poll(0)) or (isinstance(line, ssl.SSLSocket) and line.pending() > 0)


def _send(line: socket.socket, data: bytes) -> None:
    """As sendall, but the timeout is for each piece that the kernel takes, and not for all of `data`: a slow client may take
    as long as it likes, as long as it takes some of it."""
    rest = memoryview(data)
    # An encrypted connection takes all that it is given, so it is given one record at a time.
    most = RECORD if isinstance(line, ssl.SSLSocket) else len(rest)
    while rest:
        rest = rest[line.send(rest[:most]) :]


def _say(line: socket.socket, message: bytes) -> None:
    """Sends a message over an idle bridge, whose buffers are empty. If that fails, the bridge has ended."""
    with contextlib.suppress(OSError):
        line.send(message, socket.MSG_DONTWAIT)


def _say_close(line: socket.socket) -> None:
    """Tells the peer that no more comes: a close_notify before the FIN."""
    if isinstance(line, ssl.SSLSocket):
        # Its answer is not waited for here.
        line.settimeout(0)
        with contextlib.suppress(OSError, ValueError):
            line.unwrap()
    # Not that of an SSLSocket, which forgets its keys.
    socket.socket.shutdown(line, socket.SHUT_WR)


class _StopSignals:
    """SIGTERM and SIGINT. At the first, `stop` is called; another, ONE_STOP later or more, has its default action."""

    NUMBERS = (signal.SIGTERM, signal.SIGINT)

    def __init__(self, stop: Callable[[], object] = lambda: None) -> None:
        self._stop = stop
        self._first: float | None = None

    def have_come(self) -> bool:
        return self._first is not None

    def came(self, number: int) -> None:
        now = time.monotonic()
        if self._first is None:
            self._first = now
            self._stop()
        elif now - self._first >= ONE_STOP:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)


# -------------------------------------------------------------------------------------------------------------- places


# In place of a token, for requests that no proxy has sent.
OWN = ""


class _Places:
    """How many requests a program serves at once, whichever of its proxies they come from (doc/protocol.md, "Places"). A place
    that comes free goes to the proxy that has waited longest. Any thread may call it.

    `wake` has `tell` called after so many seconds. It is called under the lock."""

    def __init__(self, count: int, wake: Callable[[float], object]) -> None:
        self.lock = threading.RLock()
        self._count = count
        self._wake = wake
        self._wakes_at = math.inf
        self._shares: list[_Share] = []
        # Requests that wait here, because their proxies cannot take them back: first come, first served.
        self._queue: collections.deque[tuple[_Claim, Callable[[], object]]] = collections.deque()

    def share(self, token: str) -> _Share:
        """That of the proxy where we have this token."""
        share = _Share(self, token)
        self._shares.append(share)
        return share

    def free_for(self, share: _Share | None) -> int:
        """How many places are free and not promised, except to this share."""
        taken = sum(one.busy + (0 if one is share else one.promised) for one in self._shares)
        return max(0, self._count - taken)

    def has_free(self) -> bool:
        """Whether a place is free, promised or not."""
        return sum(one.busy for one in self._shares) < self._count

    def is_free_here(self, share: _Share) -> bool:
        """Whether a place is free for a request that is here. One that is promised is: the proxy can send the request that it was
        promised for elsewhere. But one that no proxy has sent must leave it, or proxies would never get one beside a busy port."""
        return self.free_for(None) > 0 if share.token == OWN else self.has_free()

    def enqueue(self, claim: _Claim, begin: Callable[[], object]) -> None:
        self._queue.append((claim, begin))

    def dequeue(self, claim: _Claim) -> bool:
        """Whether it still waited."""
        left = [one for one in self._queue if one[0] is not claim]
        waited = len(left) < len(self._queue)
        self._queue = collections.deque(left)
        return waited

    def move_on(self, last: _Share | None = None) -> None:
        """Gives away what has come free, `last` by this share."""
        self._serve_queue()
        # Otherwise one that was promised before would be promised again.
        if self.free_for(None):
            self._promise(last)
        self.tell()

    def _serve_queue(self) -> None:
        while self._queue and self.is_free_here(self._queue[0][0].share):
            claim, begin = self._queue.popleft()
            claim.share.busy += 1
            claim.has_place = True
            begin()

    def _promise(self, last: _Share | None) -> None:
        """Keeps a place for the proxy that has waited longest, or for `last`, if that waits, too, and not much less long."""
        now = time.monotonic()
        waiting = [one for one in self._shares if one.waits_since is not None and one.doubted_until <= now and one.can_use_more()]
        if not waiting:
            return
        share = min(waiting, key=_Share.waiting_since)
        if last in waiting and last is not None and last.waiting_since() - share.waiting_since() <= STAYS:
            share = last
        share.promise(now)

    def tell(self) -> None:
        """Tells the proxies what is due, and sees to it that the rest is told in time."""
        with self.lock:
            now = time.monotonic()
            if now >= self._wakes_at:
                self._wakes_at = math.inf
            for share in self._shares:
                # The place is for all then.
                if share.promised and share.promised_until <= now:
                    share.lapse(now)
                    self._serve_queue()
            following = math.inf
            for share in self._shares:
                if share.promised:
                    following = min(following, share.promised_until)
                due = share.due(now)
                if due <= now:
                    share.tell(now)
                else:
                    following = min(following, due)
            if following < self._wakes_at:
                self._wakes_at = following
                self._wake(following - now)


class _Share:
    """What one proxy has of the places, and what it has been told. Used under the lock of the places."""

    def __init__(self, places: _Places, token: str) -> None:
        self.places = places
        # Requests that have a place. Tunnels have none, but the proxy counts them.
        self.busy = 0
        self.tunnels = 0
        # All bridges that the proxy has accepted, tunnels included.
        self.bridges = 0
        # Since when its oldest request waits, if that is known.
        self.waits_since: float | None = None
        # Places that are kept for it.
        self.promised = 0
        self.promised_until = 0.0
        # Since when it is believed again that it waits, after it has not used a promise, and how often in a row it has not.
        self.doubted_until = 0.0
        self._lapses = 0
        # When the last promise was made, since when its request had waited by then, and whether it came too late for that.
        self._promised_at = 0.0
        self._waited_since: float | None = None
        self._has_lapsed = False
        # How often in a row it came too late, and after what time.
        self._late = 0
        self._response = 0.0
        # Bridges without a request, over which it can be told.
        self.idle: dict[_Claim, None] = {}
        self.token = token
        # How many bridges it uses at most, as it was last told, and when and over which bridge.
        self._told: float = math.inf
        self._told_at = -math.inf
        self.told_over: _Claim | None = None
        # How what is to be told differs from that, and since when.
        self._news = ""
        self._news_since = 0.0
        # The numbers of our messages and of its own.
        self._sent = 0
        self._heard = -1

    def waiting_since(self) -> float:
        return math.inf if self.waits_since is None else self.waits_since

    def can_use_more(self) -> bool:
        return self.busy + self.tunnels + self.promised < self.bridges

    def hear(self, value: str) -> None:
        """What the proxy says of its queue."""
        parts = re.fullmatch(r"(none|[0-9]{1,9}); at=([0-9]{1,19})", value)
        if parts is None:
            return
        with self.places.lock:
            if int(parts[2]) <= self._heard:
                return
            self._heard = int(parts[2])
            self.doubted_until, self._lapses = 0.0, 0
            if parts[1] == "none":
                self.forgo()
            else:
                self.waits_since = time.monotonic() - int(parts[1]) / 1000
            if not self.promised:
                self.places.move_on()

    def promise(self, now: float) -> None:
        """A place is kept for it."""
        self.promised += 1
        self.promised_until = now + min(max(PROMISED, self._response + WINDOW), LONGEST_PROMISE)
        self._promised_at, self._waited_since = now, self.waits_since
        # Until it says how long its next one has waited.
        self.waits_since = now

    def lapse(self, now: float) -> None:
        """It has not used the place in time. It may not wait any more, but its `none` may be lost; or it is far away."""
        self.promised = 0
        self.waits_since = self._waited_since
        self.doubted_until = now + PAUSE * 2 ** min(self._lapses, DOUBLINGS)
        self._lapses += 1
        self._has_lapsed = True

    def use_promise(self) -> None:
        """A request of it has got a place."""
        if self.promised:
            self.promised -= 1
            self._late, self._lapses, self._has_lapsed = 0, 0, False

    def note_late(self) -> None:
        """A request has come that has no place: perhaps the one that had a promise. If that happens again and again, the next lasts
        as long."""
        if not self._has_lapsed:
            return
        self._has_lapsed = False
        self._late += 1
        if self._late >= LATE:
            self._response = time.monotonic() - self._promised_at
            self._lapses, self.doubted_until = 0, 0.0

    def forgo(self) -> None:
        """It does not wait any more."""
        self.waits_since = None
        self.promised = 0
        self._has_lapsed = False

    def _limit(self) -> int:
        return self.tunnels + self.busy + self.places.free_for(self)

    def due(self, now: float) -> float:
        """When it is to be told its limit; infinity if there is nothing to tell."""
        told = min(self._told, self.bridges)
        limit = min(self._limit(), self.bridges)
        busy = self.tunnels + self.busy
        news = ""
        if self._sent and self.told_over is None:
            news = "lost"
        elif limit > told:
            news = "no longer full" if told <= busy else "more"
        elif limit < told:
            news = "full" if limit == busy else "less"
        if news != self._news:
            self._news, self._news_since = news, now
        if not news:
            return math.inf
        if news == "lost" or (limit > told and self.promised):
            return now
        if news == "no longer full":
            return self._news_since + WINDOW
        if news == "full":
            return self._news_since + FULL_FOR
        return max(self._news_since + FULL_FOR, self._told_at + PAUSE)

    def tell(self, now: float) -> None:
        """Tells it its limit now. If no bridge is idle, it is told when one is."""
        claim = next(iter(self.idle), None)
        if claim is not None:
            claim.say(f"HTTP/1.1 102 Processing\r\nCloudbridge-Places: {self.value(claim, now)}\r\n\r\n".encode("ascii"))

    def value(self, claim: _Claim, now: float) -> str:
        """What it is told now over this bridge."""
        limit = self._limit()
        self._told, self._told_at, self.told_over = limit, now, claim
        self._news = ""
        self._sent += 1
        return f"{limit}; at={self._sent}; by={self.token}"


class _Claim:
    """What one bridge has of the places. `say` sends a message over it; it is called under the lock, and only while the bridge is
    idle. `knows`: the proxy knows places, and can be given requests back."""

    def __init__(self, share: _Share, say: Callable[[bytes], object], knows: bool) -> None:
        self.share = share
        self.say = say
        self.knows = knows
        self.has_place = False
        # Whether the request behind its 101 has come.
        self._has_begun = False
        self._is_open = True
        self._is_tunnel = False
        with share.places.lock:
            if knows:
                share.bridges += 1
            self.idle()

    def idle(self) -> None:
        """The bridge has no request."""
        with self.share.places.lock:
            if self.knows and self._is_open and not self._is_tunnel:
                self.share.idle[self] = None
                self.share.places.tell()

    def occupied(self) -> None:
        """It has one."""
        with self.share.places.lock:
            self.share.idle.pop(self, None)

    def take(self) -> bool:
        """Whether its request, or a 101, has got a place. Old proxies could not take it back: it gets one in any case."""
        share = self.share
        with share.places.lock:
            if self.has_place:
                return True
            if self.knows and not share.places.free_for(share):
                share.note_late()
                return False
            self._enter()
            return True

    def _enter(self) -> None:
        share = self.share
        share.busy += 1
        share.use_promise()
        self.has_place = True
        self.occupied()
        share.places.tell()

    def enqueue(self, begin: Callable[[], object]) -> None:
        """Calls `begin` when it has a place, perhaps at once."""
        share = self.share
        with share.places.lock:
            self.occupied()
            if self.has_place or share.places.is_free_here(share):
                if not self.has_place:
                    self._enter()
                begin()
            else:
                share.places.enqueue(self, begin)

    def dequeue(self) -> bool:
        """It waits no more. False if it has got a place meanwhile."""
        with self.share.places.lock:
            return self.share.places.dequeue(self)

    def wait(self, within: float | None = None) -> bool:
        """Waits for a place, for so many seconds at most; true if it has got one. For threads."""
        begun = threading.Event()
        self.enqueue(begun.set)
        return begun.wait(within) or not self.dequeue()

    def begin(self, can_go_back: bool) -> bool:
        """A request has come. False if it has no place: then it is given back, or waits."""
        self._has_begun = True
        self.occupied()
        return self.take() if can_go_back or not self.knows else self.has_place

    async def wait_in_loop(self) -> None:
        """Waits for a place."""
        loop = asyncio.get_running_loop()
        begun = loop.create_future()
        self.enqueue(lambda: loop.call_soon_threadsafe(_set, begun))
        try:
            await begun
        except BaseException:
            if not self.dequeue():
                self.free()
            raise

    def end(self, is_idle: bool) -> None:
        """Its request has ended. `is_idle`: the response is complete, so another may come."""
        self.free()
        if is_idle:
            self.idle()

    def expect_no_longer(self) -> None:
        """No request has followed the 101, so no place is kept for it."""
        if not self._has_begun:
            self.free()
            self.idle()

    def free(self) -> None:
        """Its request has ended, or has not come."""
        share = self.share
        with share.places.lock:
            if self.has_place:
                self.has_place = False
                share.busy -= 1
                share.places.move_on(share)

    def tunnel(self) -> None:
        """Its request has become a tunnel, which the proxy counts and we do not."""
        with self.share.places.lock:
            if not self._is_tunnel and self._is_open:
                self._is_tunnel = True
                self.share.tunnels += int(self.knows)
                self.occupied()
                self.free()

    def close(self) -> None:
        """The bridge is closed."""
        share = self.share
        with share.places.lock:
            if not self._is_open:
                return
            self._is_open = False
            self.occupied()
            share.places.dequeue(self)
            self.free()
            if not self.knows:
                return
            share.bridges -= 1
            share.tunnels -= int(self._is_tunnel)
            if share.told_over is self:
                # Perhaps it has not arrived.
                share.told_over = None
            if not share.bridges:
                share.forgo()
            share.places.move_on()

    def given_back(self) -> list[tuple[str, str]]:
        """The fields of a 503 by which its request is given back."""
        with self.share.places.lock:
            value = self.share.value(self, time.monotonic())
        return [("Cloudbridge-Undelivered", "places"), ("Cloudbridge-Places", value), ("Content-Length", "0")]

    def give_back(self) -> bytes:
        """The 503 by which its request is given back."""
        fields = "".join(f"{name}: {value}\r\n" for name, value in self.given_back())
        return f"HTTP/1.1 503 Service Unavailable\r\n{fields}\r\n".encode("ascii")


# ---------------------------------------------------------------------------------------------------------------- WSGI


def serve_wsgi(
    app: WsgiApplication,
    proxies: Names | None = None,
    hosts: Names | None = None,
    keys: Names | None = None,
    *,
    threads: int = THREADS,
    prefix: str = "/",
    instance: str | None = None,
    predicates: Predicates | None = None,
    forwarded_hops: int = 1,
    ping_interval: float = PING_INTERVAL,
    bearer_keys: bool | None = None,
    grace: float = GRACE,
    ca: str | None = None,
    server_name: str | None = None,
    client_cert: tuple[str, str] | None = None,
) -> None:
    """Serves a WSGI application until SIGTERM or SIGINT, and returns when requests in flight are finished. Another signal,
    half a second later or more, ends the process at once.

    Must be called in the main thread, the only one with signals; elsewhere use WsgiServer. `threads` is the number of
    requests at once, of all proxies together, and of bridges at each of them. See WsgiServer for the rest."""
    server = WsgiServer(
        app,
        proxies,
        hosts,
        keys,
        threads=threads,
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
    # A handler runs between any two steps of the main thread, so it must not take a lock. The pipe wakes that thread whichever
    # one the kernel has given the signal to.
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    wakeup = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    signals = _StopSignals()
    before = {number: signal.signal(number, lambda number, _frame: signals.came(number)) for number in signals.NUMBERS}
    try:
        server.start()
        while not signals.have_come():
            os.read(reading, 1)
        server.stop(grace)
    finally:
        signal.set_wakeup_fd(wakeup)
        for number, handler in before.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)
        os.close(reading)
        os.close(writing)


class WsgiServer:
    """A WSGI server on threads whose connections come from proxies.

    `prefix`: only paths below this one; SCRIPT_NAME stays empty. `instance`: the name of this process, the same at all
    proxies and after a restart, to which clients of a sticky site come back. `predicates`: only requests of a certain kind:
    names of `If-*` fields, such as `If-Method`, with one value or several. `forwarded_hops`: how many proxies append to
    X-Forwarded-For, cloudbridge included: REMOTE_ADDR is that many from its end. `ping_interval`: the proxies', in seconds. `ca`, `server_name`, `client_cert`: see Tls."""

    def __init__(
        self,
        app: WsgiApplication,
        proxies: Names | None = None,
        hosts: Names | None = None,
        keys: Names | None = None,
        *,
        threads: int = THREADS,
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
        names = _listed(proxies, "BRIDGE_PROXIES")
        if not names or threads < 1 or forwarded_hops < 1:
            raise ValueError("no proxies, threads or forwarded_hops are given")
        offer = _Offer(hosts, keys, prefix, bearer_keys, instance, predicates)
        tls = _tls_of(names, ca, server_name, client_cert)
        extensions = ["receipts", "probes", "places"] if len(names) > 1 else ["receipts", "probes"]
        self.proxies = [_Proxy(name, offer, tls, *extensions) for name in names]
        self.app = app
        self.threads = threads
        self.forwarded_hops = forwarded_hops
        self.silence = ping_interval * MISSED_PINGS
        # One for each request at once, over all proxies together.
        places = _Places(threads, self._wake)
        self._shares = {proxy: places.share(proxy.token) for proxy in self.proxies}
        self._places = places
        self._alarm = threading.Condition(places.lock)
        self._alarm_at = math.inf
        # Guards the paces, the stages and the list of bridges, and is notified when one of them changes.
        self.changed = threading.Condition()
        self.stopping = False
        self._bridges: set[_Bridge] = set()

    def start(self) -> None:
        """Starts the threads, and returns."""
        for proxy in self.proxies:
            for _ in range(self.threads):
                bridge = _Bridge(self, proxy, self._shares[proxy])
                self._bridges.add(bridge)
                # A daemon: an application that hangs must not keep the process from exiting.
                threading.Thread(target=bridge.run, daemon=True).start()
        if len(self.proxies) > 1:
            threading.Thread(target=self._tell_in_time, daemon=True).start()

    def _wake(self, delay: float) -> None:
        self._alarm_at = time.monotonic() + delay
        self._alarm.notify()

    def _tell_in_time(self) -> None:
        """A thread: tells the proxies of places when it is time."""
        with self._alarm:
            while not self.stopping or self._bridges:
                left = self._alarm_at - time.monotonic()
                if left > 0:
                    self._alarm.wait(min(left, LONGEST_WAIT))
                else:
                    self._alarm_at = math.inf
                    self._places.tell()

    def stop(self, grace: float = GRACE) -> None:
        """Deregisters from all proxies. Finishes requests in flight, and those that still come over a bridge before the proxy
        has closed it; after `grace` seconds they are cut off. Returns when all bridges are closed. Must not be called
        from a thread that serves requests, nor from a signal handler."""
        until = time.monotonic() + grace
        with self.changed:
            self.stopping = True
            self.changed.notify_all()
            places = {(bridge.proxy, bridge.leaves_at) for bridge in self._bridges if bridge.leaves_at}
            for bridge in self._bridges:
                if not bridge.leaves_at:
                    bridge.retire()
        for proxy, address in places:
            if proxy.left(address):
                continue
            with self.changed:
                for bridge in self._bridges:
                    if (bridge.proxy, bridge.leaves_at) == (proxy, address):
                        bridge.retire()
        with self.changed:
            self.changed.wait_for(lambda: not self._bridges, max(0.0, until - time.monotonic()))
            if self._bridges:
                log.warning("grace period over: %d bridges are cut", len(self._bridges))
            for bridge in self._bridges:
                bridge.cut()

    def over(self, bridge: _Bridge) -> None:
        """A thread has ended, which happens when the server stops. Called under the lock."""
        self._bridges.discard(bridge)
        self.changed.notify_all()


class _Bridge:
    """One thread: serves one bridge after another."""

    def __init__(self, server: WsgiServer, proxy: _Proxy, share: _Share) -> None:
        self.server = server
        self.proxy = proxy
        self._share = share
        # What the bridge has of the places, once it is accepted. An encrypted one is woken to say something itself.
        self._claim: _Claim | None = None
        self._alarm: _Alarm | None = None
        self.stage = Stage.CLOSED
        # The address of the proxy, if it supports deregistration.
        self.leaves_at: Address | None = None
        self._line: socket.socket | None = None
        self._lines: io.BufferedReader | None = None
        self._address: Address = None
        self._parked_at: float | None = None
        self._used = False
        # Whether the proxy takes receipts.
        self._receipts = False

    def run(self) -> None:
        server, pace = self.server, self.proxy.pace
        while self._await_turn():
            error: object = None
            try:
                self._hold()
            except (OSError, _Refused) as caught:
                error = caught
            except Exception as caught:
                # A bug of ours: the bridge is lost, the thread is not.
                error = caught
                log.exception("a bridge failed")
            with server.changed:
                self._close()
                if not server.stopping:
                    pace.ended(error, self._parked_at, self._used)
                server.changed.notify_all()
        with server.changed:
            server.over(self)

    def _await_turn(self) -> bool:
        """Waits until the proxy may be dialled; false if the server stops."""
        server = self.server
        with server.changed:
            while not server.stopping:
                wait = self.proxy.pace.admit()
                if wait is None:
                    self.stage, self._parked_at, self._used = Stage.DIALLING, None, False
                    self._receipts = False
                    return True
                server.changed.wait(wait)
        return False

    def _hold(self) -> None:
        """One connection to the proxy, until it is closed."""
        line = self.proxy.encrypted(socket.create_connection(self.proxy.place, CONNECT_WITHIN))
        with self.server.changed:
            # From here on other threads may shut it down.
            self._line, self._lines = line, io.BufferedReader(line.makefile("rb", 0), BUFFER)
            if self.stage is Stage.CLOSED:
                return
        _set_options(line)
        lines = self._lines
        self._address = line.getpeername()
        line.settimeout(ANSWER_WITHIN)
        registration = self.proxy.registration()
        line.sendall(registration.first)
        if not self._await_match(line, lines, registration):
            return
        self._used = True
        claim = self._claim
        assert claim is not None
        self._expect(line, lines, claim)
        try:
            while True:
                request = None
                if self._rest(line, lines):
                    request = _Request.read(lines, lambda head: self._hear(head, line, lines, claim))
                if request is None or not self._turn(Stage.SERVING):
                    return
                line.settimeout(IDLE)
                if self._admit(request, line, claim):
                    response = _Response(self, request, line, lines)
                    if self._receipts and request.method not in REPEATABLE:
                        _send(line, RECEIPT)
                    keeps = response.serve()
                    claim.free()
                else:
                    keeps = request.discard_body(lines)
                    _send(line, claim.give_back())
                    # The proxy does not know of a timeout.
                    line.settimeout(None)
                if not keeps:
                    return self._linger(line)
                if not self._turn(Stage.IDLE):
                    return
                claim.idle()
        except _BadRequest as error:
            _send(line, b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s" % (len(error.text), error.text))
            self._linger(line)

    def _admit(self, request: _Request, line: socket.socket, claim: _Claim) -> bool:
        """Whether there is a place for this request, which waits for one if the proxy cannot take it back."""
        can_go_back = request.fields.pop("cloudbridge-held", "") != "no"
        claim.occupied()
        if self._alarm is not None:
            self._alarm.flush(line)
        return claim.take() if claim.knows and can_go_back else claim.wait()

    def free_place(self) -> None:
        """The end of the response is about to be sent. The place is free before it is: the proxy may send the next request over
        another bridge at once."""
        if self._claim is not None:
            self._claim.free()

    def _hear(self, head: list[str], line: socket.socket, lines: io.BufferedReader, claim: _Claim) -> None:
        """What the proxy says between two requests: a 101 to find out whether we are there, or how long its requests wait."""
        with contextlib.suppress(OSError):
            if not head[0].startswith(SWITCH):
                claim.share.hear(_Answer.between(head).field("cloudbridge-waiting"))
            elif not claim.knows or claim.take():
                line.sendall(ACK)
                self._expect(line, lines, claim)
            else:
                line.sendall(claim.give_back())
            # Before the next head, as before the first.
            self._rest(line, lines)

    def _expect(self, line: socket.socket, lines: io.BufferedReader, claim: _Claim) -> None:
        """After a 101. If no request follows, no place is kept for it."""
        if claim.knows and claim.has_place and not _await_bytes(line, lines, EXPECTED):
            claim.free()
            claim.idle()

    def _rest(self, line: socket.socket, lines: io.BufferedReader) -> bool:
        """Waits for bytes of the proxy, and says meanwhile what is to be said over an encrypted bridge. False if none come in
        time."""
        return self._alarm is None or self._alarm.await_bytes(line, lines)

    def _await_match(self, line: socket.socket, lines: io.BufferedReader, registration: _Registration) -> bool:
        """Reads the answers of the proxy. True if requests may follow: one has been matched, and has a place or is given back."""
        while True:
            if not self._rest(line, lines):
                raise OSError("timed out")
            answer = _Answer(_read_head(lines))
            if answer.status == 101:
                claim = self._claim or self._claimed(line, knows=False)
                if not claim.knows or claim.take():
                    break
                line.sendall(claim.give_back())
                # Its pings have ended, and plain requests may come.
                line.settimeout(None)
                return self._turn(Stage.IDLE)
            if registration.asks and answer.nonce is not None and self._parked_at is None:
                line.sendall(registration.prove(answer.nonce))
                continue
            if answer.status >= 200:
                line.settimeout(ANSWER_WITHIN)
                body = lines.read(min(answer.number("content-length"), MAX_ANSWER))
                raise answer.refusal(body, self._parked_at is not None, registration)
            if self._parked_at is None:
                self._parked(answer)
                self._claimed(line, answer.lets("places") and len(self.server.proxies) > 1)
                line.settimeout(self.server.silence)
            elif self._claim is not None:
                self._claim.share.hear(answer.field("cloudbridge-waiting"))
        if not claim.wait(READY_WITHIN):
            # The request is sent to another bridge, or waits in the proxy. Nothing is parked until a place is free.
            self.cut()
            self._used = claim.wait()
            return False
        if self._turn(Stage.ACCEPTED):
            if self._alarm is not None:
                self._alarm.flush(line)
            line.sendall(ACK)
            line.settimeout(IDLE)
            return True
        return False

    def _claimed(self, line: socket.socket, knows: bool) -> _Claim:
        if knows and isinstance(line, ssl.SSLSocket):
            self._alarm = _Alarm()
        say = self._alarm.say if self._alarm is not None else functools.partial(_say, line)
        self._claim = _Claim(self._share, say, knows)
        return self._claim

    def _parked(self, answer: _Answer) -> None:
        with self.server.changed:
            self._parked_at = time.monotonic()
            self._receipts = answer.lets("receipts")
            if self.stage is not Stage.CLOSED:
                self.stage = Stage.PARKED
            if answer.lets("leave") and not self.server.stopping:
                self.leaves_at = self._address
            self.proxy.pace.accepted()
            self.server.changed.notify_all()

    def _turn(self, stage: Stage) -> bool:
        """Enters a stage; false if the bridge has been closed, or must be closed now."""
        with self.server.changed:
            if self.stage is Stage.CLOSED:
                return False
            if stage is Stage.IDLE and self.server.stopping and not self.leaves_at:
                return False
            self.stage = stage
            return True

    def retire(self) -> None:
        """Closes the bridge, after its request if it has one. Under the lock."""
        self.leaves_at = None
        if self.stage in (Stage.DIALLING, Stage.PARKED) or (self.stage is Stage.IDLE and not _has_bytes(self._line)):
            self.stage = Stage.CLOSED
            self.cut()

    def cut(self) -> None:
        """Wakes the bridge's thread, which finds its connection closed. Under the lock."""
        if self._line is not None:
            with contextlib.suppress(OSError):
                socket.socket.shutdown(self._line, socket.SHUT_RDWR)

    def _linger(self, line: socket.socket) -> None:
        """Lingering close: sends FIN, and reads until the proxy has closed too."""
        until = time.monotonic() + LINGER
        _say_close(line)
        while (left := until - time.monotonic()) > 0:
            line.settimeout(left)
            if not line.recv(BUFFER):
                return

    def _close(self) -> None:
        """Ends the connection at once. Under the lock."""
        self.stage = Stage.CLOSED
        self.leaves_at = None
        if self._claim is not None:
            self._claim.close()
        for one in (self._lines, self._line, self._alarm):
            if one is not None:
                with contextlib.suppress(OSError):
                    one.close()
        self._lines = self._line = self._claim = self._alarm = None


class _Alarm:
    """What is to be said over an encrypted bridge. OpenSSL lets one thread at a time use a connection, so others wake the one that
    waits for its bytes."""

    def __init__(self) -> None:
        self._reading, self._writing = socket.socketpair()
        self._reading.setblocking(False)
        self._writing.setblocking(False)
        self._messages: collections.deque[bytes] = collections.deque()

    def say(self, message: bytes) -> None:
        self._messages.append(message)
        with contextlib.suppress(OSError):
            self._writing.send(b"x")

    def flush(self, line: socket.socket) -> None:
        with contextlib.suppress(BlockingIOError):
            self._reading.recv(BUFFER)
        while self._messages:
            line.sendall(self._messages.popleft())

    def await_bytes(self, line: socket.socket, lines: io.BufferedReader) -> bool:
        """Waits for bytes of the proxy, and says what is to be said. False if none come within the timeout of `line`."""
        timeout = line.gettimeout()
        until = math.inf if timeout is None else time.monotonic() + timeout
        while (left := until - time.monotonic()) > 0:
            if _await_bytes(line, lines, left, self._reading):
                return True
            self.flush(line)
        return False

    def close(self) -> None:
        self._reading.close()
        self._writing.close()


def _await_bytes(line: socket.socket, lines: io.BufferedReader, within: float, alarm: socket.socket | None = None) -> bool:
    """Waits until there is something to read, its end included. False after so many seconds, or as soon as `alarm` is readable."""
    until = time.monotonic() + within
    waiting = select.poll()
    waiting.register(line, select.POLLIN)
    if alarm is not None:
        waiting.register(alarm, select.POLLIN)
    timeout = line.gettimeout()
    while (left := until - time.monotonic()) > 0:
        # What is readable may be a record of TLS that is none of ours to read.
        line.settimeout(0)
        try:
            if lines.peek(1) or isinstance(line, ssl.SSLSocket):
                return True
        except (ssl.SSLWantReadError, BlockingIOError):
            pass
        except OSError:
            return True
        finally:
            line.settimeout(timeout)
        ready = {number for number, _ in waiting.poll(None if left == math.inf else math.ceil(left * 1000))}
        if alarm is not None and alarm.fileno() in ready:
            return False
        if ready and not isinstance(line, ssl.SSLSocket):
            return True
    return False


class _BadRequest(Exception):
    """The bytes received are not a valid request."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text.encode("ascii") + b"\n"


class _Request:
    """The head of a request."""

    def __init__(self, line: str, fields: list[str]) -> None:
        parts = line.split(" ")
        if len(parts) != 3 or parts[2] not in ("HTTP/1.1", "HTTP/1.0"):
            raise _BadRequest("bad request line")
        self.method, self.target, self.version = parts
        # Names in lower case; values of one name joined.
        self.fields: dict[str, str] = {}
        for field in fields:
            name, colon, value = field.partition(":")
            if not colon or not re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", name):
                raise _BadRequest("bad field")
            name, value = name.lower(), value.strip(" \t")
            if name in self.fields:
                value = f"{self.fields[name]}{'; ' if name == 'cookie' else ','}{value}"
            self.fields[name] = value

    @classmethod
    def read(cls, lines: io.BufferedReader, hear: Callable[[list[str]], None]) -> _Request | None:
        """The next request of a bridge; None at its end, or when it has been idle for too long. `hear` is given what the proxy
        itself says instead."""
        head: list[str] = []
        left = MAX_HEAD
        while True:
            try:
                line = lines.readline(left + 1)
            except (TimeoutError, socket.timeout, ConnectionError):
                return None
            left -= len(line)
            if not line or left < 0:
                return None
            if line in (b"\r\n", b"\n"):
                if head and head[0].startswith(SAID):
                    hear(head)
                    head, left = [], MAX_HEAD
                elif head:
                    return cls(head[0], head[1:])
                continue
            head.append(line.decode("latin-1").rstrip("\r\n"))

    def body(self, lines: io.BufferedReader, send: Callable[[bytes], None]) -> _Body:
        expects = "100-continue" in self.fields.get("expect", "").lower()
        if "transfer-encoding" in self.fields:
            if self.fields["transfer-encoding"].lower() != "chunked":
                raise _BadRequest("unknown transfer coding")
            return _Body(lines, None, send if expects else None)
        length = self.fields.get("content-length", "0")
        if not re.fullmatch(r"[0-9]{1,19}", length):
            raise _BadRequest("bad Content-Length")
        return _Body(lines, int(length), send if expects else None)


    def discard_body(self, lines: io.BufferedReader) -> bool:
        """Reads its body for nobody; true if the next request can follow."""
        body = self.body(lines, lambda _: None)
        return not body.is_awaited() and body.drain()


class _Body(io.RawIOBase):
    """A request's body without its framing. A truncated one raises ConnectionError, so that it does not look complete."""

    def __init__(self, lines: io.BufferedReader, length: int | None, send: Callable[[bytes], None] | None) -> None:
        super().__init__()
        self._lines = lines
        # Bytes still to come of the body or of this chunk; `_chunks`: more chunks follow.
        self._left = length or 0
        self._chunks = length is None
        self._between = False
        self._cut_off = False
        # Sends `100 Continue` to a client that waits for it.
        self._send = send

    def readable(self) -> bool:
        return True

    def is_done(self) -> bool:
        return self._left == 0 and not self._chunks

    def is_awaited(self) -> bool:
        """Whether the client still waits for `100 Continue`."""
        return self._send is not None and not self.is_done()

    def is_broken(self) -> bool:
        """Whether the rest of it will not come."""
        return self._cut_off

    def forsake(self) -> None:
        """The rest of it will not come, or its end is unknown."""
        self._cut_off = True

    def _fail(self, why: str) -> NoReturn:
        self._cut_off = True
        raise ConnectionError(why)

    def readinto(self, into: Any) -> int:
        if self.is_done():
            return 0
        if self._cut_off:
            self._fail("the request's body does not come")
        if self._send is not None:
            send, self._send = self._send, None
            send(ACK)
        if self._left == 0 and not self._next_chunk():
            return 0
        data = self._read(self._lines.read1, min(len(into), self._left))
        if not data:
            self._fail("the request's body was cut off")
        self._left -= len(data)
        into[: len(data)] = data
        return len(data)

    def _next_chunk(self) -> bool:
        if self._between and self._line() != b"":
            self._fail("a chunk does not end")
        self._between = True
        size = self._line().split(b";")[0].strip()
        if not re.fullmatch(rb"[0-9A-Fa-f]{1,16}", size):
            self._fail("bad chunk size")
        self._left = int(size, 16)
        if self._left == 0:
            self._chunks = False
            left = MAX_HEAD
            while (trailer := self._line()) and left > 0:
                left -= len(trailer)
        return self._left > 0

    def _line(self) -> bytes:
        line = self._read(self._lines.readline, MAX_CHUNK_LINE)
        if not line.endswith(b"\n"):
            self._fail("the request's body was cut off")
        return line.rstrip(b"\r\n")

    def _read(self, read: Callable[[int], bytes], most: int) -> bytes:
        try:
            return read(most)
        except OSError:
            self._cut_off = True
            raise

    def drain(self) -> bool:
        """Discards what the application has not read; true if the next request can follow."""
        left = MAX_DRAINED
        scratch = bytearray(BUFFER)
        while left > 0 and not self.is_done():
            left -= self.readinto(scratch)
        return self.is_done()


# Fields of the connection, which the application must not set.
_OUR_FIELDS = frozenset(["connection", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade"])


class _Response:
    """One call of the application."""

    def __init__(self, bridge: _Bridge, request: _Request, line: socket.socket, lines: io.BufferedReader) -> None:
        self._bridge = bridge
        self._request = request
        self._line = line
        self._body = request.body(lines, lambda data: _send(line, data))
        self._status: str | None = None
        self._fields: list[tuple[str, str]] = []
        self._began = False
        # Bytes of the body still to send, or None for chunks.
        self._left: int | None = None
        self._closes = request.version == "HTTP/1.0" or request.fields.get("connection", "").lower() == "close"
        # Whether the connection has failed, which is not an error of the application.
        self._broken = False

    def serve(self) -> bool:
        """Whether the bridge can carry another request."""
        try:
            result = self._bridge.server.app(self._environ(), self._start)
            try:
                self._send_all(result)
            finally:
                if hasattr(result, "close"):
                    result.close()
        except (Exception, SystemExit):
            if self._broken or self._body.is_broken():
                log.debug("the client or the proxy is gone", exc_info=True)
                return False
            log.exception("the application failed: %s", self._shown())
            if self._began:
                # A truncated response must look truncated: it is not terminated.
                return False
            self._fail()
        return not self._closes and self._body.drain()

    def _shown(self) -> str:
        """The request, for the log."""
        return f"{self._request.method} {self._request.target.split('?')[0]}"

    def _send_all(self, result: Iterable[bytes]) -> None:
        if self._left is None and isinstance(result, (list, tuple)) and not self._began:
            self._left = sum(map(len, result))
        for data in result:
            if data:
                self._write(data)
        if not self._began:
            self._write(b"")
        if self._is_bodiless():
            return
        if self._left is None and not self._closes_at_end():
            self._bridge.free_place()
            self._send(b"0\r\n\r\n")
        elif self._left:
            raise RuntimeError(f"the response is {self._left} bytes shorter than its Content-Length")

    def _fail(self) -> None:
        text = b"The application failed.\n"
        self._left = None
        self._start("500 Internal Server Error", [("Content-Type", "text/plain"), ("Content-Length", str(len(text)))], sys.exc_info())
        self._write(text)

    def _start(self, status: str, fields: list[tuple[str, str]], exc_info: ExcInfo = None) -> Callable[[bytes], None]:
        """start_response of PEP 3333."""
        if exc_info is not None:
            try:
                if self._began and exc_info[1] is not None:
                    raise exc_info[1].with_traceback(exc_info[2])
            finally:
                exc_info = None
        elif self._status is not None:
            raise AssertionError("start_response was called before")
        if not re.fullmatch(r"[2-5][0-9]{2}(?: [ -~\x80-\xff]*)?", status):
            raise ValueError(f"bad status {status!r}")
        self._left = None
        self._fields = []
        for name, value in fields:
            if not re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", name) or not re.fullmatch(r"[\t -~\x80-\xff]*", value):
                raise ValueError(f"bad field {name!r}")
            if name.lower() == "content-length":
                self._left = int(value)
            if name.lower() == "connection" and value.lower() == "close":
                self._closes = True
            # Cloudbridge-* is what a backend itself says to the proxy.
            if name.lower() not in _OUR_FIELDS and not name.lower().startswith("cloudbridge-"):
                self._fields.append((name, value))
        self._status = status if " " in status else f"{status} "
        return self._write

    def _is_bodiless(self) -> bool:
        return self._request.method == "HEAD" or (self._status or "")[:3] in ("204", "304")

    def _closes_at_end(self) -> bool:
        """Whether the end of the connection ends the body: HTTP/1.0 has no chunks."""
        return self._request.version == "HTTP/1.0"

    def _write(self, data: bytes) -> None:
        if not isinstance(data, bytes):
            raise TypeError("the application returned something other than bytes")
        head = b""
        if not self._began:
            if self._status is None:
                raise AssertionError("start_response was not called")
            head = self._head()
            self._began = True
        if self._is_bodiless() or not data:
            if self._is_bodiless() or self._left == 0:
                self._bridge.free_place()
            if head:
                self._send(head)
            return
        if self._left is not None:
            data = data[: self._left]
            self._left -= len(data)
            if self._left == 0 and len(data) <= BUFFER:
                self._bridge.free_place()
        elif not self._closes_at_end():
            data = b"%x\r\n%s\r\n" % (len(data), data)
        if len(head) + len(data) > BUFFER:
            self._send(head)
            head = b""
        self._send(head + data)

    def _head(self) -> bytes:
        names = {name.lower() for name, _ in self._fields}
        lines = [f"HTTP/1.1 {self._status}"] + [f"{name}: {value}" for name, value in self._fields]
        if "date" not in names:
            lines.append(f"Date: {email.utils.formatdate(usegmt=True)}")
        if not self._is_bodiless() and "content-length" not in names:
            if self._left is not None:
                lines.append(f"Content-Length: {self._left}")
            elif not self._closes_at_end():
                lines.append("Transfer-Encoding: chunked")
        # A client that still waits for `100 Continue` may or may not send its body, so the next bytes are ambiguous.
        if self._body.is_awaited():
            self._body.forsake()
            self._closes = True
        if self._bridge.server.stopping:
            self._closes = True
        lines.append("Connection: close" if self._closes else f"Keep-Alive: timeout={IDLE}")
        return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")

    def _send(self, data: bytes) -> None:
        if not data:
            return
        try:
            _send(self._line, data)
        except (TimeoutError, socket.timeout):
            self._broken = True
            log.warning("cut off: nothing of the response to %s was taken for %d s", self._shown(), IDLE)
            raise
        except OSError:
            self._broken = True
            raise

    def _environ(self) -> dict[str, Any]:
        request, fields = self._request, self._request.fields
        path, _, query = request.target.partition("?")
        scheme = fields.get("x-forwarded-proto", "").lower()
        scheme = scheme if scheme in ("http", "https") else "http"
        host = re.fullmatch(r"(\[[^\]]*\]|[^:]*)(?::([0-9]+))?", fields.get("host", ""))
        hops = [one.strip() for one in fields.get("x-forwarded-for", "").split(",") if one.strip()]
        environ = {
            "REQUEST_METHOD": request.method,
            "SCRIPT_NAME": "",
            "PATH_INFO": urllib.parse.unquote_to_bytes(path.encode("latin-1")).decode("latin-1"),
            "QUERY_STRING": query,
            "SERVER_NAME": (host and host[1]) or "localhost",
            "SERVER_PORT": (host and host[2]) or ("443" if scheme == "https" else "80"),
            "SERVER_PROTOCOL": request.version,
            "SERVER_SOFTWARE": "cloudbridge",
            "wsgi.version": (1, 0),
            "wsgi.url_scheme": scheme,
            "wsgi.input": io.BufferedReader(self._body, BUFFER),
            "wsgi.input_terminated": True,
            "wsgi.errors": sys.stderr,
            "wsgi.multithread": True,
            "wsgi.multiprocess": False,
            "wsgi.run_once": False,
            "wsgi.file_wrapper": wsgiref.util.FileWrapper,
        }
        depth = self._bridge.server.forwarded_hops
        environ["REMOTE_ADDR"] = hops[-min(depth, len(hops))] if hops else self._line.getpeername()[0]
        for name, value in fields.items():
            if name in ("content-type", "content-length"):
                environ[name.upper().replace("-", "_")] = value
            elif "_" not in name:
                # With an underscore it could not be told from the field with a dash.
                environ["HTTP_" + name.upper().replace("-", "_")] = value
        return environ


# ------------------------------------------------------------------------------------------------------------- asyncio


async def serve_asyncio(
    handler: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[object]],
    proxies: Names | None = None,
    hosts: Names | None = None,
    keys: Names | None = None,
    *,
    connections: int = CONNECTIONS,
    prefix: str = "/",
    instance: str | None = None,
    predicates: Predicates | None = None,
    ping_interval: float = PING_INTERVAL,
    bearer_keys: bool | None = None,
    grace: float = GRACE,
    stop: asyncio.Event | None = None,
    signals: bool = True,
    ca: str | None = None,
    server_name: str | None = None,
    client_cert: tuple[str, str] | None = None,
) -> None:
    """Passes each matched bridge to `await handler(reader, writer)`, an asyncio.StreamReader and StreamWriter whose next
    bytes are a request, and closes it when the handler returns.

    The handler may answer one request, or keep the bridge for more: one at a time, from any client, until the end of the
    reader. There are `connections` bridges at each proxy.

    Returns after SIGTERM or SIGINT (unless `signals` is false) or when the asyncio.Event `stop` is set, once all handlers
    have ended. The proxy then closes the bridges, in use or not, and a handler sees the end of its reader. (With an older
    proxy a handler between two requests should end by itself when `stop` is set.) Handlers that take longer than `grace`
    seconds are cancelled. Cancelling serve_asyncio itself ends it at once. `ca`, `server_name`, `client_cert`: see Tls."""

    async def serve(line: _Line) -> None:
        try:
            reader, writer = await asyncio.open_connection(sock=line, limit=BUFFER)
        except BaseException:
            line.close()
            raise
        try:
            await handler(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            # The proxy has closed the bridge, which is how bridges end.
            log.debug("the proxy has closed a bridge", exc_info=True)
        except Exception:
            log.exception("the handler failed")
        finally:
            writer.close()
        # Its buffer is flushed before the program may end.
        with contextlib.suppress(OSError, asyncio.TimeoutError):
            await asyncio.wait_for(writer.wait_closed(), LINGER)

    bridges = AsyncBridges(
        serve,
        proxies,
        hosts,
        keys,
        connections=connections,
        prefix=prefix,
        instance=instance,
        predicates=predicates,
        ping_interval=ping_interval,
        bearer_keys=bearer_keys,
        ca=ca,
        server_name=server_name,
        client_cert=client_cert,
    )
    stop = stop or asyncio.Event()
    loop = asyncio.get_running_loop()
    caught: tuple[signal.Signals, ...] = ()
    if signals and threading.current_thread() is threading.main_thread():
        stops = _StopSignals(stop.set)
        caught = stops.NUMBERS
        for number in caught:
            loop.add_signal_handler(number, stops.came, number)
    try:
        bridges.start()
        await stop.wait()
        await bridges.leave(grace)
    finally:
        for number in caught:
            loop.remove_signal_handler(number)
        await bridges.cut()
        await bridges.flush()


class _Line(socket.socket):
    """A connection to a proxy. It tells when the server that it was given to has closed it. Of an encrypted connection it is the
    end without TLS, and `pump` has the other."""

    on_close: Callable[[], None] | None = None
    pump: _Pump | None = None
    # The proxy's address.
    peer: Address = ("", 0)
    # What it has of the places, if the server tells when requests begin and end, and how the server writes to it.
    claim: _Claim | None = None
    write: Callable[[bytes], object] | None = None

    def close(self) -> None:
        super().close()
        self._tell_closed()

    def detach(self) -> int:
        """uvloop closes connections so."""
        number = super().detach()
        self._tell_closed()
        return number

    def say(self, message: bytes) -> None:
        """Sends a message over it, while it is idle."""
        if self.write is None:
            _say(self, message)
            return
        # The server may just be closing it.
        with contextlib.suppress(OSError, RuntimeError):
            self.write(message)

    def _tell_closed(self) -> None:
        if self.pump is not None:
            self.pump.end_soon()
        if self.claim is not None:
            self.claim.close()
        self._tell()

    def _tell(self) -> None:
        tell, self.on_close = self.on_close, None
        if tell is not None:
            tell()

    async def await_close(self, transfer: Callable[[], Awaitable[object]]) -> None:
        """Hands the connection over, and waits until its new owner has closed or released it."""
        loop = asyncio.get_running_loop()
        closed = asyncio.Event()

        def tell() -> None:
            # It may be closed in another thread, and after the loop.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(closed.set)

        self.on_close = tell
        try:
            await transfer()
        except BaseException:
            self.close()
            raise
        await closed.wait()

    def release(self) -> None:
        """It is not counted any more, because it is a tunnel, and is not closed by us."""
        if self.claim is not None:
            self.claim.tunnel()
        self._tell()


class _Pump:
    """TLS for the servers under asyncio, which take nothing but a socket of the system: it passes the bytes of an encrypted
    connection to one end of a socket pair, and back. The server has the other end, a _Line, with all that it can do: half-close,
    any event loop, any thread.

    It costs two descriptors more for each bridge, and that each piece of up to 64 KiB is copied into the kernel and out again
    once more."""

    def __init__(self, wire: socket.socket, proxy: _Proxy) -> None:
        assert proxy.tls is not None
        self._wire = wire
        self._session, self._came, self._sent = proxy.tls.session(proxy.place[0])
        self._sending = asyncio.Lock()
        self._inner: socket.socket | None = None
        # Whether the server has ended its side, and whether nothing that has come is left to be decrypted.
        self._ended = False
        self._drained = False
        self._loop = asyncio.get_running_loop()
        self._task: asyncio.Task[None] | None = None
        self._closing: asyncio.TimerHandle | None = None
        # Why it has broken, if it has.
        self.why: OSError | None = None

    async def begin(self) -> _Line:
        """Makes the handshake, and returns the server's end."""
        try:
            while True:
                try:
                    self._session.do_handshake()
                    break
                except ssl.SSLWantReadError:
                    await self._flush()
                    if not await self._take():
                        raise OSError("the connection ended in the handshake") from None
            await self._flush()
            theirs, self._inner = socket.socketpair()
            line = _Line(theirs.family, theirs.type, theirs.proto, theirs.detach())
            line.setblocking(False)
            self._inner.setblocking(False)
            line.pump = self
        except BaseException:
            # The peer is told what is wrong with it.
            with contextlib.suppress(OSError):
                self._wire.send(self._sent.read())
            self._wire.close()
            raise
        self._task = self._loop.create_task(self._run())
        return line

    async def _run(self) -> None:
        assert self._inner is not None
        up = self._loop.create_task(self._pass_up(self._inner))
        try:
            await self._pass_down(self._inner)
            # Until the server has closed its end, too.
            await up
        except OSError as error:
            # As when a connection breaks: the server finds its end closed.
            self.why = error
            log.debug("an encrypted bridge broke", exc_info=True)
        finally:
            up.cancel()
            await asyncio.gather(up, return_exceptions=True)
            if self._closing is not None:
                self._closing.cancel()
            self._inner.close()
            self._wire.close()

    async def _pass_down(self, inner: socket.socket) -> None:
        """From the proxy to the server."""
        while True:
            try:
                data = self._session.read(BUFFER)
            except ssl.SSLWantReadError:
                self._drained = True
                await self._end()
                await self._flush()
                came = await self._take()
                self._drained = False
                if not came:
                    self._came.write_eof()
                continue
            except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
                data = b""
            if not data:
                break
            try:
                await self._loop.sock_sendall(inner, data)
            except OSError:
                # The server reads no more. What still comes is discarded, until the proxy closes.
                continue
        self._drained = True
        with contextlib.suppress(OSError):
            inner.shutdown(socket.SHUT_WR)

    async def _pass_up(self, inner: socket.socket) -> None:
        """From the server to the proxy."""
        try:
            while data := await self._loop.sock_recv(inner, BUFFER):
                self._session.write(data)
                await self._flush()
        except OSError:
            # The proxy has gone, or the server has given up its end with bytes in it.
            log.debug("an encrypted bridge broke", exc_info=True)
        self._ended = True
        await self._end()

    async def _end(self) -> None:
        """Says that the server has ended its side. Not while something that has come waits to be decrypted: OpenSSL would take it
        for an error."""
        if not (self._ended and self._drained):
            return
        self._ended = False
        with contextlib.suppress(OSError):
            # It is said, and the answer has not come yet.
            self._session.unwrap()
        with contextlib.suppress(OSError):
            await self._flush()
            self._wire.shutdown(socket.SHUT_WR)

    async def _take(self) -> bool:
        """Waits for bytes of the proxy; false at the end."""
        data = await self._loop.sock_recv(self._wire, BUFFER)
        self._came.write(data)
        return bool(data)

    async def _flush(self) -> None:
        async with self._sending:
            if data := self._sent.read():
                await self._loop.sock_sendall(self._wire, data)

    def end_soon(self) -> None:
        """The server has closed its end. What it has written is still sent, and the proxy may take LINGER to close. Called in any
        thread."""
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._limit)

    def _limit(self) -> None:
        if self._task is not None and self._closing is None and not self._task.done():
            self._closing = self._loop.call_later(LINGER, self._task.cancel)

    async def done(self) -> None:
        """Waits until all is sent, and the proxy has closed."""
        if self._task is not None:
            await asyncio.wait([self._task])

    def is_done(self) -> bool:
        return self._task is None or self._task.done()

    def cut(self) -> None:
        if self._task is not None:
            self._task.cancel()


class AsyncBridges:
    """Bridges at proxies, for servers under asyncio. Each matched and acknowledged connection is given to `serve`, which
    returns when another bridge may take its place. See serve_asyncio for the rest.

    `transfers`: the server closes connections by itself when it ends, so what a proxy cannot be asked to close is left to
    it. `counts`: the server tells the `claim` of each connection when a request begins and ends."""

    def __init__(
        self,
        serve: Callable[[_Line], Awaitable[None]],
        proxies: Names | None,
        hosts: Names | None = None,
        keys: Names | None = None,
        *,
        connections: int = CONNECTIONS,
        prefix: str = "/",
        instance: str | None = None,
        predicates: Predicates | None = None,
        ping_interval: float = PING_INTERVAL,
        bearer_keys: bool | None = None,
        transfers: bool = False,
        counts: bool = False,
        ca: str | None = None,
        server_name: str | None = None,
        client_cert: tuple[str, str] | None = None,
    ) -> None:
        names = _listed(proxies, "BRIDGE_PROXIES")
        if not names or connections < 1:
            raise ValueError("no proxies or connections are given")
        offer = _Offer(hosts, keys, prefix, bearer_keys, instance, predicates)
        silence = ping_interval * MISSED_PINGS
        self._connections = connections
        tls = _tls_of(names, ca, server_name, client_cert)
        places = _Places(connections, self._wake) if counts and len(names) > 1 else None
        extensions = [] if places is None else ["places"]
        self._groups = [_AsyncGroup(serve, _Proxy(name, offer, tls, *extensions), silence, transfers, places) for name in names]
        self._places = places
        # Of requests that come another way.
        self._own = places.share(OWN) if places is not None else None
        self._loop: asyncio.AbstractEventLoop | None = None

    def _wake(self, delay: float) -> None:
        # After the loop there is nothing to tell.
        with contextlib.suppress(RuntimeError):
            if self._loop is not None and self._places is not None:
                self._loop.call_soon_threadsafe(self._loop.call_later, delay, self._places.tell)

    def claim(self) -> _Claim | None:
        """That of a request that has come another way, if places are counted: it has to `wait` for one, and then to `free` it."""
        return None if self._own is None else _Claim(self._own, lambda _: None, knows=False)

    def start(self) -> None:
        """Begins to dial. To be called in the running loop."""
        self._loop = asyncio.get_running_loop()
        for group in self._groups:
            group.start(self._connections)

    async def leave(self, grace: float = GRACE) -> None:
        """Deregisters from all proxies, and returns when they have closed the bridges, after `grace` seconds at the latest.
        Until then requests come and must be served."""
        await asyncio.gather(*(group.leave(grace) for group in self._groups))

    async def cut(self) -> None:
        """Ends what is left."""
        await asyncio.gather(*(group.cut() for group in self._groups))

    async def flush(self, within: float | None = LINGER) -> None:
        """Sends what the server has written to encrypted connections that it has closed, tunnels among them, and cuts what is
        open after that time. To be called before the loop ends."""
        await asyncio.gather(*(group.flush(within) for group in self._groups))


class _AsyncGroup:
    """The bridges at one proxy, one task each."""

    def __init__(
        self, serve: Callable[[_Line], Awaitable[None]], proxy: _Proxy, silence: float, transfers: bool, places: _Places | None
    ) -> None:
        self.serve = serve
        self.proxy = proxy
        # What this proxy has of the places, if they are counted.
        self.share = places.share(proxy.token) if places is not None else None
        self.silence = silence
        self.stopping = False
        self._transfers = transfers
        # Made in the running loop: before Python 3.10 it belongs to the one that runs then.
        self.changed: asyncio.Condition
        # Each task and its bridge.
        self._tasks: dict[asyncio.Task[None], _AsyncBridge] = {}
        # Of encrypted connections, tunnels among them, until they have ended.
        self._pumps: set[_Pump] = set()

    def start(self, connections: int) -> None:
        self.changed = asyncio.Condition()
        for _ in range(connections):
            bridge = _AsyncBridge(self)
            self._tasks[asyncio.get_running_loop().create_task(bridge.run())] = bridge

    async def leave(self, grace: float) -> None:
        if not self._tasks:
            return
        self.stopping = True
        async with self.changed:
            self.changed.notify_all()
        addresses = {bridge.leaves_at for bridge in self._tasks.values() if bridge.leaves_at}
        self._retire(lambda bridge: not bridge.leaves_at)
        loop = asyncio.get_running_loop()
        for address in addresses:
            if not await loop.run_in_executor(None, self.proxy.left, address):
                self._retire(functools.partial(_AsyncBridge.is_at, address=address))
        waited = [task for task, bridge in self._tasks.items() if not (self._transfers and bridge.stays)]
        if not waited:
            return
        _, late = await asyncio.wait(waited, timeout=grace)
        if late:
            log.warning("grace period over: %d bridges are cut", len(late))

    def _retire(self, which: Callable[[_AsyncBridge], bool]) -> None:
        """Closes the bridges that no server has."""
        for task, bridge in self._tasks.items():
            if which(bridge):
                bridge.stays = bridge.stage is Stage.SERVING
                if not bridge.stays:
                    task.cancel()

    async def cut(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def watch(self, pump: _Pump) -> None:
        self._pumps = {one for one in self._pumps if not one.is_done()} | {pump}

    async def flush(self, within: float | None) -> None:
        left = [asyncio.ensure_future(pump.done()) for pump in self._pumps if not pump.is_done()]
        if left:
            await asyncio.wait(left, timeout=within)
        for pump in self._pumps:
            pump.cut()
        await asyncio.gather(*(pump.done() for pump in self._pumps))


class _AsyncBridge:
    """One task: passes one bridge after another to the server."""

    def __init__(self, group: _AsyncGroup) -> None:
        self._group = group
        self._line: _Line | None = None
        self._parked_at: float | None = None
        self.stage = Stage.CLOSED
        self.leaves_at: Address | None = None
        # Whether the server has it and the proxy will not close it.
        self.stays = False

    def is_at(self, address: Address) -> bool:
        return bool(self.leaves_at == address)

    async def run(self) -> None:
        group, pace = self._group, self._group.proxy.pace
        while await self._await_turn():
            error: object = None
            used = False
            try:
                line = await self._await_match()
                used = True
                await group.serve(line)
                if line.pump is not None and line.fileno() < 0:
                    # Closed, and not a tunnel: what the server has written is still to be sent.
                    await line.pump.done()
            except asyncio.TimeoutError:
                error = "timed out"
            except (OSError, _Refused) as caught:
                # What the proxy said of our certificate comes after the handshake, and only the pump sees it.
                pump = self._line.pump if self._line is not None else None
                error = pump.why if pump is not None and pump.why is not None else caught
            except Exception as caught:
                # A bug of ours: the bridge is lost, the task is not.
                error = caught
                log.exception("a bridge failed")
            finally:
                self._close()
                if not group.stopping:
                    pace.ended(error, self._parked_at, used)
            async with group.changed:
                group.changed.notify_all()

    async def _await_turn(self) -> bool:
        group = self._group
        while not group.stopping:
            async with group.changed:
                wait = group.proxy.pace.admit()
                if wait is None:
                    self.stage, self._parked_at = Stage.DIALLING, None
                    return True
                with contextlib.suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(group.changed.wait(), wait)
        return False

    async def _await_match(self) -> _Line:
        """Dials, and returns the connection when a request has been matched. Not a byte of it has been read."""
        group = self._group
        line = self._line = await _dial(group.proxy)
        if line.pump is not None:
            group.watch(line.pump)
        registration = group.proxy.registration()
        await asyncio.get_running_loop().sock_sendall(line, registration.first)
        silence: float | None = ANSWER_WITHIN
        gave_back = False
        while not (gave_back and await _is_request(line)):
            answer = _Answer(await asyncio.wait_for(_head(line), silence))
            if answer.status == 101:
                claim = line.claim or self._claimed(line, knows=False)
                if claim is None or claim.take():
                    line.send(ACK)
                    break
                _say(line, claim.give_back())
                # Its pings have ended, and plain requests may come.
                gave_back, silence = True, None
                continue
            if registration.asks and answer.nonce is not None and self._parked_at is None:
                await asyncio.get_running_loop().sock_sendall(line, registration.prove(answer.nonce))
                continue
            if answer.status >= 200:
                length = min(answer.number("content-length"), MAX_ANSWER)
                body = await asyncio.wait_for(_text(line, length), ANSWER_WITHIN)
                raise answer.refusal(body, self._parked_at is not None, registration)
            if self._parked_at is not None and line.claim is not None:
                line.claim.share.hear(answer.field("cloudbridge-waiting"))
            if self._parked_at is None:
                self._parked(answer, line)
                self._claimed(line, answer.lets("places"))
                silence = group.silence
                async with group.changed:
                    group.changed.notify_all()
        # No await since the ACK, so that `retire` sees a consistent state.
        self.stage = Stage.SERVING
        self._line = None
        if line.claim is not None:
            asyncio.get_running_loop().call_later(EXPECTED, line.claim.expect_no_longer)
        return line

    def _claimed(self, line: _Line, knows: bool) -> _Claim | None:
        if self._group.share is not None:
            line.claim = _Claim(self._group.share, line.say, knows)
        return line.claim

    def _parked(self, answer: _Answer, line: _Line) -> None:
        self._parked_at = time.monotonic()
        self.stage = Stage.PARKED
        if answer.lets("leave"):
            self.leaves_at = line.peer
        self._group.proxy.pace.accepted()

    def _close(self) -> None:
        self.stage = Stage.CLOSED
        self.leaves_at = None
        if self._line is not None:
            self._line.close()
            self._line = None


async def _dial(proxy: _Proxy) -> _Line:
    """A connection to the first address of the name that accepts."""
    loop = asyncio.get_running_loop()
    error: BaseException = OSError("the name has no address")
    for family, kind, protocol, _, address in await loop.getaddrinfo(*proxy.place, type=socket.SOCK_STREAM):
        line = _Line(family, kind, protocol)
        try:
            line.setblocking(False)
            await asyncio.wait_for(loop.sock_connect(line, address), CONNECT_WITHIN)
            _set_options(line)
            peer = line.getpeername()
        except (OSError, asyncio.TimeoutError) as caught:
            line.close()
            error = caught
            continue
        except BaseException:
            line.close()
            raise
        if proxy.tls is not None:
            # What is wrong with a certificate is wrong at every address.
            line = await asyncio.wait_for(_Pump(line, proxy).begin(), CONNECT_WITHIN)
        line.peer = peer
        return line
    raise error


async def _seen(line: _Line) -> bytes:
    """What has come, without taking it; empty at the end."""
    loop = asyncio.get_running_loop()
    while True:
        with contextlib.suppress(BlockingIOError):
            return line.recv(MAX_ANSWER, socket.MSG_PEEK)
        ready: asyncio.Future[None] = loop.create_future()
        loop.add_reader(line, _set, ready)
        try:
            await ready
        finally:
            loop.remove_reader(line)


async def _is_request(line: _Line) -> bool:
    """Whether the next bytes are a request, and nothing that the proxy itself says. Not a byte of it is taken."""
    while True:
        begun = (await _seen(line))[: len(HTTP)]
        if not begun or begun == HTTP:
            return False
        if not HTTP.startswith(begun):
            return True
        # The method HEAD begins like that, too.
        await asyncio.sleep(FIRST_WAIT)


def _set(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)


async def _head(line: _Line) -> bytes:
    """The head of an answer, and not a byte more: what follows a 101 belongs to the server."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        seen = await _seen(line)
        if not seen:
            raise OSError("the proxy closed the connection")
        end = (head + seen).find(b"\r\n\r\n")
        head += line.recv(len(seen) if end < 0 else end + 4 - len(head))
        if len(head) > MAX_ANSWER or not head.startswith(HTTP[: len(head)]):
            raise OSError("the peer is not a proxy")
    return head


async def _text(line: _Line, length: int) -> bytes:
    """The text of a refusal. The status is enough if it does not come."""
    text = b""
    while len(text) < length:
        seen = await _seen(line)
        if not seen:
            break
        text += line.recv(length - len(text))
    return text


# ------------------------------------------------------------------------------------------------------------ listener


class BridgeListener:
    """Looks like a listening socket, for servers on threads or processes that take one and accept from it: each accepted
    socket carries requests, one at a time, until the proxy closes it. A selector may watch it: it is readable when a
    connection can be accepted.

    There are `connections` bridges at each proxy, those included that are accepted and not closed. A server must read each
    request's body to its end, or close the connection. It should not close one between two requests, because a request may
    be on its way: give it a long keep-alive timeout, and end with `leave`.

    A thread of its own dials and waits. So a program that forks must do that first.

    `counts`: the server tells the `claim` of each connection when a request begins and ends (cloudbridge.gunicorn)."""

    family = socket.AF_INET
    type = socket.SOCK_STREAM
    proto = 0

    def __init__(
        self,
        proxies: Names | None = None,
        hosts: Names | None = None,
        keys: Names | None = None,
        *,
        connections: int = THREADS,
        prefix: str = "/",
        instance: str | None = None,
        predicates: Predicates | None = None,
        ping_interval: float = PING_INTERVAL,
        bearer_keys: bool | None = None,
        counts: bool = False,
        ca: str | None = None,
        server_name: str | None = None,
        client_cert: tuple[str, str] | None = None,
    ) -> None:
        self._bridges = AsyncBridges(
            self._serve,
            proxies,
            hosts,
            keys,
            connections=connections,
            prefix=prefix,
            instance=instance,
            predicates=predicates,
            ping_interval=ping_interval,
            bearer_keys=bearer_keys,
            transfers=True,
            counts=counts,
            ca=ca,
            server_name=server_name,
            client_cert=client_cert,
        )
        self._matched: collections.deque[_Line] = collections.deque()
        # One byte for each connection that can be accepted.
        self._reading, self._writing = socket.socketpair()
        self._closed = threading.Event()
        self._loop = asyncio.new_event_loop()
        # A daemon: it must not keep the process from exiting.
        threading.Thread(target=self._run, name="cloudbridge", daemon=True).start()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.call_soon(self._bridges.start)
        self._loop.run_forever()
        self._loop.close()

    async def _serve(self, line: _Line) -> None:
        async def queue() -> None:
            self._matched.append(line)
            self._writing.send(b"x")

        await line.await_close(queue)

    def fileno(self) -> int:
        return self._reading.fileno()

    def getsockname(self) -> tuple[str, int]:
        """No address: nothing listens."""
        return ("", 0)

    def setblocking(self, flag: bool) -> None:
        self._reading.setblocking(flag)

    def settimeout(self, timeout: float | None) -> None:
        self._reading.settimeout(timeout)

    def gettimeout(self) -> float | None:
        return self._reading.gettimeout()

    def setsockopt(self, *_options: object) -> None:
        """The connections have the options they need."""

    def listen(self, _backlog: int = 0) -> None:
        """There is no backlog: the queue is in the proxy."""

    def accept(self) -> tuple[socket.socket, Address]:
        """As socket.accept. Raises OSError once `close` has been called."""
        if not self._reading.recv(1):
            raise OSError("the listener is closed")
        line = self._matched.popleft()
        line.setblocking(True)
        return line, line.peer

    def claim(self) -> _Claim | None:
        """See AsyncBridges."""
        return self._bridges.claim()

    def leave(self, grace: float = GRACE) -> None:
        """Deregisters from the proxies, and returns when they have closed all bridges, after `grace` seconds at the latest.
        Until then connections must be accepted and requests served, so it is called in another thread than the one that
        accepts."""
        with contextlib.suppress(RuntimeError):
            asyncio.run_coroutine_threadsafe(self._bridges.leave(grace), self._loop).result()

    def close(self) -> None:
        """Closes what is parked at once. Accepted connections are the server's."""
        if self._closed.is_set():
            return
        self._closed.set()

        async def end() -> None:
            await self._bridges.cut()
            self._writing.close()
            # Encrypted ones need this thread as long as the server has them.
            await self._bridges.flush(None)
            self._loop.stop()

        with contextlib.suppress(RuntimeError):
            asyncio.run_coroutine_threadsafe(end(), self._loop)
