#!/usr/bin/env python3
"""The application of the soak: answers with what the request names, and journals each request before it acts.

    application.py JOURNAL --listen ADDRESS:PORT
    application.py JOURNAL --bridges HOST PROXY...        over the Python library, without a port

    GET  /get/ID?work=MS        ID, after so many milliseconds
    GET  /bytes/ID?size=N       N bytes of `wire.pattern`; chunked=1 in chunks
    POST /post/ID?work=MS       reads the body, acts, and answers with ID and the body's checksum
    POST /refuse/ID             answers 413 without reading the body
    GET  /tunnel/ID             an Upgrade: echoes

The journal has a line for each step, written at once, so that it is whole when this program is killed:
`R ID METHOD` when a head has come, `X ID` when a POST is executed, `E ID` when the answer has been given to the kernel.
TERM ends it in good order: what is under way is finished, idle connections are closed."""

import asyncio
import os
import signal
import sys
import urllib.parse
from pathlib import Path

sys.dont_write_bytecode = True
import wire

# Bytes of a chunk, and of one write.
CHUNK = 48 * 1024
# How long what is under way may take after TERM, in seconds.
GRACE = 20


class Application:
    """The requests that it serves, and whether it is ending."""

    def __init__(self, journal):
        self.journal = os.open(journal, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        self.ending = asyncio.Event()
        self.idle = set()

    def note(self, step, *words):
        """One line in the journal."""
        os.write(self.journal, (" ".join([step, *words]) + "\n").encode())

    async def serve(self, reader, writer):
        """One connection: request after request."""
        try:
            while not self.ending.is_set() and await self.serve_one(reader, writer):
                pass
        except (OSError, EOFError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass
        finally:
            self.idle.discard(writer)
            writer.close()

    async def serve_one(self, reader, writer):
        """One request. False if the connection ends after it."""
        self.idle.add(writer)
        head = await wire.read_head(reader)
        self.idle.discard(writer)
        if writer.is_closing():
            # It was idle when TERM came. Nothing of this request is acted on.
            return False
        method, target, _ = head.start
        path, _, query = target.partition("?")
        what, name = path.strip("/").split("/")
        options = {key: values[0] for key, values in urllib.parse.parse_qs(query).items()}
        self.note("R", name, method)
        kept = await getattr(self, what)(reader, writer, head, name, options)
        self.note("E", name)
        return kept

    async def answer(self, writer, name, body, status="200 OK", also=""):
        """A whole response; `also` is more fields. False if the connection ends after it."""
        close = self.ending.is_set() or "Connection: close" in also
        if close and "Connection" not in also:
            also += "Connection: close\r\n"
        head = f"HTTP/1.1 {status}\r\nX-Id: {name}\r\nContent-Length: {len(body)}\r\n{also}\r\n"
        writer.write(head.encode() + body)
        await writer.drain()
        return not close

    async def get(self, _reader, writer, head, name, options):
        """A small response."""
        await asyncio.sleep(int(options.get("work", 0)) / 1000)
        body = b"" if head.start[0] == "HEAD" else name.encode()
        return await self.answer(writer, name, body)

    async def bytes(self, _reader, writer, _head, name, options):
        """A large response."""
        body = wire.pattern(name, int(options["size"]))
        if options.get("chunked") != "1":
            return await self.answer(writer, name, body)
        writer.write(f"HTTP/1.1 200 OK\r\nX-Id: {name}\r\nTransfer-Encoding: chunked\r\n\r\n".encode())
        for start in range(0, len(body), CHUNK):
            piece = body[start : start + CHUNK]
            writer.write(b"%x\r\n%b\r\n" % (len(piece), piece))
            await writer.drain()
        writer.write(b"0\r\n\r\n")
        await writer.drain()
        return True

    async def post(self, reader, writer, head, name, options):
        """Executed once the whole body has come."""
        if head.fields.get("expect"):
            writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        total = wire.Sum()
        async for piece in wire.pieces(reader, head):
            total.add(piece)
        self.note("X", name)
        await asyncio.sleep(int(options.get("work", 0)) / 1000)
        return await self.answer(writer, name, f"{name} {total}".encode())

    async def refuse(self, _reader, writer, _head, name, _options):
        """An early answer; the connection lingers, so that the answer is not destroyed."""
        kept = await self.answer(writer, name, name.encode(), "413 Content Too Large", "Connection: close\r\n")
        writer.write_eof()
        await asyncio.sleep(0.05)
        return kept

    async def tunnel(self, reader, writer, _head, name, _options):
        """Echoes until the other side shuts down."""
        writer.write(f"HTTP/1.1 101 Switching Protocols\r\nX-Id: {name}\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n".encode())
        while piece := await reader.read(64 * 1024):
            writer.write(piece)
            await writer.drain()
        return False

    def end(self):
        """TERM has come."""
        self.ending.set()
        for writer in self.idle:
            writer.close()


async def listen(application, address):
    """Serves at an address until TERM."""
    host, _, port = address.rpartition(":")
    tasks = set()

    async def serve(reader, writer):
        tasks.add(asyncio.current_task())
        await application.serve(reader, writer)
        tasks.discard(asyncio.current_task())

    server = await asyncio.start_server(serve, host, int(port), backlog=1024)
    print("ready", flush=True)
    await application.ending.wait()
    server.close()
    if tasks:
        await asyncio.wait(tasks, timeout=GRACE)


async def main():
    """Serves as the command line says."""
    journal, how, *words = sys.argv[1:]
    application = Application(journal)
    loop = asyncio.get_running_loop()
    if how == "--listen":
        loop.add_signal_handler(signal.SIGTERM, application.end)
        return await listen(application, words[0])
    sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "src/clients/python"))
    import cloudbridge

    host, *proxies = words
    await cloudbridge.serve_asyncio(application.serve, proxies, hosts=[host], connections=4)


if __name__ == "__main__":
    asyncio.run(main())
