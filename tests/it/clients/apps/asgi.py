"""The application of the tests, as an ASGI program under uvicorn or hypercorn."""
import asyncio
import os
import signal
import sys

sys.path.insert(0, os.environ["CLIENTS"] + "/python/package")

TEXT = [(b"content-type", b"text/plain")]


async def lifespan(receive, send):
    while True:
        message = await receive()
        await send({"type": message["type"] + ".complete"})
        if message["type"] == "lifespan.shutdown":
            return


async def echo(receive, send):
    await receive()
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", "text": message["text"]})


async def whole(receive):
    body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    return body


async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        return await lifespan(receive, send)
    if scope["type"] == "websocket":
        return await echo(receive, send)
    path, fields = scope["path"], TEXT
    _, what, *rest = path.split("/")
    if what == "lines":
        await send({"type": "http.response.start", "status": 200, "headers": fields})
        for first in range(0, int(rest[0]), 1000):
            lines = "".join("%015d\n" % number for number in range(first, min(first + 1000, int(rest[0])))).encode()
            await send({"type": "http.response.body", "body": lines, "more_body": True})
        return await send({"type": "http.response.body"})
    status = 200
    if what == "wait":
        print("waiting", flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
        body = b"waited"
    elif what == "fields":
        body = b" ".join(name for name, _ in scope["headers"])
    elif what == "unread":
        body = b"not read"
    elif what == "forged":
        await whole(receive)
        status, fields, body = 503, [*TEXT, (b"cloudbridge-undelivered", b"application")], b"forged"
    elif what == "client":
        body = "{} {}".format(scope["client"][0], scope["scheme"]).encode()
    elif scope["method"] == "POST":
        body = await whole(receive)
    else:
        body = "{} {} for {}".format(scope["method"], path, dict(scope["headers"])[b"host"].decode()).encode()
    await send({"type": "http.response.start", "status": status, "headers": [*fields, (b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})


settings = {"proxies": os.environ["PROXIES"].split(","), "connections": int(os.environ["CONNECTIONS"])}
if sys.argv[1] == "uvicorn":
    from cloudbridge.uvicorn import run

    # uvicorn raises the signal again when it has ended.
    signal.signal(signal.SIGTERM, lambda number, frame: None)
    run(app, **settings, log_level="warning", access_log=False)
else:
    from cloudbridge.hypercorn import serve
    from hypercorn.config import Config

    asyncio.run(serve(app, Config(), **settings))
print("stopped", flush=True)
