"""The load: clients that do everything clients do, and remember what came of it."""

import asyncio
import contextlib
import dataclasses
import random
import socket
import struct
import time

import wire
from systems import HOST

# How long a request may take, in seconds: longer than any timeout of a proxy.
DEADLINE = 100
# Seconds before a proxy that refuses a connection is dialled again.
PAUSE = 0.02
# Largest bodies, in bytes.
SMALL, LARGE = 2_000, 1_500_000


@dataclasses.dataclass
class Request:
    """One request, and what came of it."""

    id: str
    kind: str
    to: str
    host: str
    # It was not the first on its connection.
    reused: bool
    begin: float = 0.0
    end: float = 0.0
    # `answered`, `aborted` (by us), or what went wrong.
    outcome: str = "unfinished"
    # Some of a response has come.
    heard: bool = False

    @property
    def is_post(self):
        """Whether it may be executed only once."""
        return self.kind in ("post", "upload", "refuse")


class Aborted(Exception):
    """This client has gone away on purpose."""


class Refused(Exception):
    """The proxy has answered with an error."""


class Wrong(Exception):
    """What came belongs to no such request."""


class Client:
    """One client: one connection at a time, and what the seed says."""

    def __init__(self, load, number):
        self.load, self.name = load, f"{load.name}{number}"
        self.rng = random.Random(f"client {load.seed} {number}")
        self.count = 0
        self.reader = self.writer = None

    async def run(self):
        """Until the load is over."""
        while not self.load.over:
            proxy = self.rng.choice(self.load.proxies)
            try:
                self.reader, self.writer = await asyncio.open_connection("127.0.0.1", proxy.port)
            except OSError:
                # It restarts. A balancer in front would do the same.
                await asyncio.sleep(PAUSE)
                continue
            try:
                await self.use(proxy)
            finally:
                self.leave(reset=False)

    async def use(self, proxy):
        """A connection: a few requests, until one ends it."""
        for number in range(self.rng.choice([1, 1, 5, 20, 50])):
            if self.load.over:
                return
            kind = self.rng.choices(list(KINDS), list(KINDS.values()))[0]
            host = HOST
            if kind in ("get", "post") and self.load.libraries and self.rng.random() < 0.1:
                host = self.rng.choice(self.load.libraries)
            self.count += 1
            request = Request(f"{self.name}-{self.count}", kind, proxy.name, host, reused=number > 0)
            if not await self.ask(request):
                return
            if self.rng.random() < 0.2:
                await asyncio.sleep(self.rng.expovariate(10))

    async def ask(self, request):
        """One request. Whether the connection goes on."""
        request.begin = time.monotonic()
        goes_on = False
        try:
            goes_on = await asyncio.wait_for(getattr(self, request.kind)(request), DEADLINE)
            request.outcome = "answered"
        except Aborted:
            request.outcome = "aborted"
            self.leave(reset=self.rng.random() < 0.5)
        except Refused as refused:
            request.outcome = f"answered {refused}"
        except Wrong as wrong:
            request.outcome = f"WRONG: {wrong}"
        except asyncio.TimeoutError:
            request.outcome = f"nothing for {DEADLINE} s"
        except (OSError, EOFError, asyncio.IncompleteReadError, ValueError) as error:
            request.outcome = f"lost: {type(error).__name__}"
        request.end = time.monotonic()
        self.load.requests.append(request)
        return goes_on

    def leave(self, reset):
        """Closes the connection, or resets it."""
        if reset:
            on = struct.pack("ii", 1, 0)
            with contextlib.suppress(OSError):
                self.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, on)
            self.writer.transport.abort()
        self.writer.close()

    def head(self, request, method, target, also=""):
        """The bytes of a head."""
        return f"{method} /{target} HTTP/1.1\r\nHost: {request.host}\r\n{also}\r\n".encode()

    async def send(self, data):
        """Sends it, sometimes in two pieces with a pause between them, and sometimes not to the end."""
        chance = self.rng.random()
        if chance < 0.02:
            self.writer.write(data[: self.rng.randrange(len(data))])
            await self.writer.drain()
            await asyncio.sleep(self.rng.uniform(0, 0.1))
            raise Aborted
        if chance < 0.1:
            at = self.rng.randrange(len(data))
            self.writer.write(data[:at])
            await self.writer.drain()
            await asyncio.sleep(self.rng.uniform(0, 0.05))
            data = data[at:]
        self.writer.write(data)
        await self.writer.drain()

    async def response(self, request):
        """The head of the response, which must be this request's."""
        if self.rng.random() < 0.02:
            await asyncio.sleep(self.rng.uniform(0, 0.02))
            raise Aborted
        head = await wire.read_response(self.reader)
        request.heard = True
        if head.status not in (200, 413):
            text = b"".join([piece async for piece in wire.pieces(self.reader, head)])
            raise Refused(f"{head.status} {text.decode(errors='replace').strip()}")
        if head.fields.get("x-id") != request.id:
            raise Wrong(f"the head of {head.fields.get('x-id')}")
        return head

    async def body(self, request, head, expected):
        """The body of the response, which must be this."""
        got = wire.Sum()
        async for piece in wire.pieces(self.reader, head):
            got.add(piece)
            if len(expected) > SMALL and self.rng.random() < 0.05:
                await asyncio.sleep(self.rng.uniform(0, 0.1))
                if self.rng.random() < 0.1:
                    raise Aborted
        if str(got) != wire.sum_of(expected):
            raise Wrong(f"a body of {got} for {request.id}")
        return not head.closes()

    def work(self):
        """How long the application takes, in ms."""
        return self.rng.choice([0, 0, 1, 2, 5, 20])

    async def get(self, request):
        """A small GET."""
        await self.send(self.head(request, "GET", f"get/{request.id}?work={self.work()}"))
        return await self.body(request, await self.response(request), request.id.encode())

    async def pipeline(self, request):
        """Several GETs at once."""
        await self.send(self.head(request, "GET", f"get/{request.id}") * 3)
        for _ in range(3):
            if not await self.body(request, await self.response(request), request.id.encode()):
                return False
        return True

    async def post(self, request):
        """A small POST."""
        body = wire.pattern(request.id, self.rng.randrange(SMALL))
        head = self.head(request, "POST", f"post/{request.id}?work={self.work()}", f"Content-Length: {len(body)}\r\n")
        await self.send(head + body)
        return await self.body(request, await self.response(request), f"{request.id} {wire.sum_of(body)}".encode())

    async def upload(self, request):
        """A large POST, in chunks or with a length."""
        body = wire.pattern(request.id, self.rng.randrange(LARGE))
        chunked = self.rng.random() < 0.5
        how = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {len(body)}"
        await self.send(self.head(request, "POST", f"post/{request.id}", f"{how}\r\n"))
        for start in range(0, len(body), 100_000):
            piece = body[start : start + 100_000]
            await self.send(b"%x\r\n%b\r\n" % (len(piece), piece) if chunked else piece)
        if chunked:
            await self.send(b"0\r\n\r\n")
        return await self.body(request, await self.response(request), f"{request.id} {wire.sum_of(body)}".encode())

    async def download(self, request):
        """A large GET."""
        size, chunked = self.rng.randrange(LARGE), self.rng.randrange(2)
        await self.send(self.head(request, "GET", f"bytes/{request.id}?size={size}&chunked={chunked}"))
        return await self.body(request, await self.response(request), wire.pattern(request.id, size))

    async def refuse(self, request):
        """A POST that is answered before its body has been sent."""
        await self.send(self.head(request, "POST", f"refuse/{request.id}", "Content-Length: 100000\r\n"))
        await self.body(request, await self.response(request), request.id.encode())
        return False

    async def tunnel(self, request):
        """An Upgrade, and an echo through it."""
        await self.send(self.head(request, "GET", f"tunnel/{request.id}", "Connection: upgrade\r\nUpgrade: echo\r\n"))
        head = await wire.read_response(self.reader)
        request.heard = True
        if head.status != 101:
            raise Refused(head.status)
        for turn in range(self.rng.randrange(1, 6)):
            ping = wire.pattern(f"{request.id}.{turn}", self.rng.choice([1, 10, 1000, 200_000]))
            self.writer.write(ping)
            pong = await self.reader.readexactly(len(ping))
            if pong != ping:
                raise Wrong("another echo")
            await asyncio.sleep(self.rng.uniform(0, 0.05))
        return False


# What clients do, and how often against the rest.
KINDS = {"get": 50, "post": 25, "pipeline": 4, "upload": 4, "download": 6, "refuse": 2, "tunnel": 2}


class Load:
    """All clients."""

    def __init__(self, name, seed, proxies, libraries, clients):
        # The first letter of its requests' names.
        self.name, self.seed, self.proxies, self.libraries = name, seed, proxies, libraries
        self.clients = [Client(self, number) for number in range(clients)]
        self.requests = []
        self.over = False

    async def run(self):
        """Until `over`, and the last request has ended."""
        await asyncio.gather(*(client.run() for client in self.clients))
