"""The application of the tests, as an asyncio program that speaks HTTP itself."""
import asyncio
import os
import sys

sys.path.insert(0, os.environ["CLIENTS"] + "/python")
from cloudbridge import serve_asyncio  # noqa: E402


async def read_body(reader, head):
    if b"\r\nTransfer-Encoding: chunked\r\n" in head:
        body = b""
        while size := int(await reader.readline(), 16):
            body += await reader.readexactly(size)
            await reader.readexactly(2)
        await reader.readexactly(2)
        return body
    length = head.partition(b"\r\nContent-Length: ")[2].split(b"\r\n")[0]
    return await reader.readexactly(int(length or 0))


async def answer(line, host, body):
    method, path, _ = line.split(" ")
    _, what, *rest = path.split("/")
    if what == "forged":
        return b"forged"
    if what == "lines":
        return "".join("%015d\n" % number for number in range(int(rest[0]))).encode()
    if what == "wait":
        print("waiting", flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
        return b"waited"
    if method == "POST":
        return body
    return f"{method} {path} for {host}".encode()


async def handler(reader, writer):
    while True:
        head = await reader.readuntil(b"\r\n\r\n")
        line, field = head.decode().split("\r\n")[:2]
        if line.startswith("GET /tunnel "):
            writer.write(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: echo\r\nConnection: Upgrade\r\n\r\n")
            writer.write(await reader.read() + b" and done")
            return
        body = await answer(line, field[len("Host: "):], await read_body(reader, head))
        start = b"503 No\r\nCloudbridge-Undelivered: application" if body == b"forged" else b"200 OK"
        writer.write(b"HTTP/1.1 %s\r\nContent-Length: %d\r\n\r\n" % (start, len(body)))
        if not line.startswith("HEAD "):
            writer.write(body)
        await writer.drain()


proxies = os.environ["PROXIES"].split(",")
# The grace is for proxies that cannot be told that we leave: a handler between two requests does not end by itself.
asyncio.run(serve_asyncio(handler, proxies, connections=int(os.environ["CONNECTIONS"]), grace=5))
print("stopped", flush=True)
