"""Clients that make requests while programs are replaced, and count what becomes of each."""

import asyncio
import collections
import itertools
import sys
from pathlib import Path

sys.dont_write_bytecode = True
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "soak"))

import wire

HOST = "soak.test"
# Of each kind: a new connection for each GET; GETs on one connection; POSTs on one connection.
CLIENTS = 4
KINDS = ("new", "kept", "post")
BROKEN = (OSError, EOFError, asyncio.IncompleteReadError)
# Seconds after which a request is lost.
TIMEOUT = 30


class Load:
    """The clients, and what they have seen."""

    def __init__(self, port, name):
        self.port, self.name = port, name
        self.numbers = itertools.count()
        self.over = False
        # By outcome. `answered` are good; the others are `refused`, `reset`, `failed` (another status) and `mixed`.
        self.outcomes = collections.Counter()
        # Connections for several requests that ended between two of them: in good order, or not.
        self.ended = collections.Counter()
        # The names of POSTs that were answered, and of those that were not.
        self.posted, self.lost = set(), set()
        # When a request failed, and how, by the monotonic clock.
        self.failures = []

    def answered(self):
        """How many requests have been answered well."""
        return self.outcomes["answered"]

    async def run(self):
        """Until `over` is set."""
        await asyncio.gather(*(self.client(kind) for kind in KINDS for _ in range(CLIENTS)))

    async def client(self, kind):
        """One client."""
        streams = None
        while not self.over:
            name = f"{self.name}-{next(self.numbers)}"
            outcome, streams = await self.attempt(kind, name, streams)
            if outcome == "idle":
                # The connection was closed before the request came. It is sent again, as RFC 9112 (section 9.3.1) has it.
                self.ended["unannounced"] += 1
                outcome, streams = await self.attempt(kind, name, None)
            self.outcomes[outcome] += 1
            if outcome != "answered":
                self.failures.append((asyncio.get_running_loop().time(), f"{kind} {name}: {outcome}"))
                await asyncio.sleep(0.005)
            if kind == "post":
                (self.posted if outcome == "answered" else self.lost).add(name)
        if streams:
            streams[1].close()

    async def attempt(self, kind, name, streams):
        """A request, on a connection that is open or on a new one. Its outcome, and the connection if it goes on."""
        reused = streams is not None
        try:
            streams = streams or await asyncio.open_connection("127.0.0.1", self.port)
        except ConnectionRefusedError:
            return "refused", None
        except OSError:
            return "reset", None
        reader, writer = streams
        try:
            outcome, goes_on = await asyncio.wait_for(self.exchange(kind, name, reader, writer), TIMEOUT)
        except asyncio.TimeoutError:
            outcome, goes_on = "timeout", False
        except asyncio.IncompleteReadError as end:
            outcome, goes_on = "idle" if reused and not end.partial else "reset", False
        except BROKEN:
            outcome, goes_on = "idle" if reused else "reset", False
        if goes_on:
            return outcome, streams
        writer.close()
        return outcome, None

    async def exchange(self, kind, name, reader, writer):
        """Sends the request and reads the response. Its outcome, and whether the connection goes on."""
        fields = f"Host: {HOST}\r\n" + ("Connection: close\r\n" if kind == "new" else "")
        if kind == "post":
            body = wire.pattern(name, 700)
            writer.write(f"POST /post/{name} HTTP/1.1\r\n{fields}Content-Length: {len(body)}\r\n\r\n".encode() + body)
            expected = f"{name} {wire.sum_of(body)}"
        else:
            writer.write(f"GET /get/{name} HTTP/1.1\r\n{fields}\r\n".encode())
            expected = name
        head = await wire.read_response(reader)
        text = b"".join([piece async for piece in wire.pieces(reader, head)]).decode()
        closes = head.closes()
        if closes and kind != "new":
            self.ended["announced"] += 1
        if head.status != 200:
            return f"failed {head.status}", not closes
        return "answered" if text == expected else "mixed", not closes
