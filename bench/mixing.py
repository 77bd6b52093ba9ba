#!/usr/bin/env python3
"""How often a client gets the answer to somebody else's request when the backend leaves request bodies unread.

    bench/mixing.py [--seconds N] [--binaries DIR] [SYSTEM ...]

Behind each system is the same careless server: it reads a head, answers with the path, and keeps the connection, whatever
Content-Length said. So a body is its next request. Two attackers send a POST whose body is `GET /evil`; four victims send
`GET /vN` and check that the answer is theirs. What counts is how many victims were poisoned for each attack.

The systems run one after another, with the same load: nginx and HAProxy as their manuals configure keep-alive to servers, the
proxy that dials (`servers`), the agent (`agent`), and a bridge of the Python module with the same careless loop (`bridge`).
"""

import argparse
import asyncio
import contextlib
import os
import pathlib
import signal
import socket
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
HOST = "127.0.0.1"
VICTIMS, ATTACKERS = 4, 2
EVIL = b"GET /evil HTTP/1.1\r\nHost: a.test\r\n\r\n"
ATTACK = b"POST /attack HTTP/1.1\r\nHost: a.test\r\nContent-Length: %d\r\n\r\n%s" % (len(EVIL), EVIL)

NGINX = """daemon off; pid {dir}/pid; error_log stderr; worker_processes 1;
events {{ worker_connections 512; }}
http {{
    access_log off; client_body_temp_path {dir}/b; proxy_temp_path {dir}/p;
    fastcgi_temp_path {dir}/f; uwsgi_temp_path {dir}/u; scgi_temp_path {dir}/s;
    upstream app {{ server {server}; keepalive 16; }}
    server {{
        listen {listen};
        location / {{ proxy_pass http://app; proxy_http_version 1.1; proxy_set_header Connection ""; }}
    }}
}}
"""

HAPROXY = """defaults
    mode http
    timeout connect 5s
    timeout client 30s
    timeout server 30s
    http-reuse {reuse}
frontend web
    bind {listen}
    default_backend app
backend app
    server app {server}
"""


async def serve_carelessly(reader, writer):
    """Answers each head with its path and reads no body."""
    with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            path = head.split(b" ", 2)[1]
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(path), path))
            await writer.drain()
    writer.close()


async def careless_server(port):
    server = await asyncio.start_server(serve_carelessly, HOST, port)
    async with server:
        await server.serve_forever()


async def careless_bridge(port):
    sys.path.insert(0, str(ROOT / "src/clients/python"))
    from cloudbridge import serve_asyncio

    await serve_asyncio(serve_carelessly, [f"{HOST}:{port}"], hosts=["a.test"], connections=8)


class Tally:
    def __init__(self):
        self.attacks = self.victims = self.poisoned = self.failed = 0


async def ask(connection, request):
    """The status and body of the answer; connects again if the connection has ended."""
    reader, writer = connection
    writer.write(request)
    head = await reader.readuntil(b"\r\n\r\n")
    length = 0
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            length = int(line[15:])
    return int(head[9:12]), await reader.readexactly(length), b"connection: close" in head.lower()


async def client(port, until, request, answered):
    connection = None
    while time.monotonic() < until:
        try:
            connection = connection or await asyncio.open_connection(HOST, port)
            status, body, closes = await asyncio.wait_for(ask(connection, request), 10)
            answered(status, body)
        except (OSError, asyncio.IncompleteReadError, asyncio.TimeoutError, ValueError):
            answered(0, b"")
            closes = True
        if closes and connection:
            connection[1].close()
            connection = None
    if connection:
        connection[1].close()


async def load(port, seconds):
    tally, until = Tally(), time.monotonic() + seconds

    def attacked(status, _body):
        tally.attacks += 1

    def victim(path):
        def answered(status, body):
            tally.victims += 1
            tally.failed += status != 200
            tally.poisoned += status == 200 and body != path

        return answered

    clients = [client(port, until, ATTACK, attacked) for _ in range(ATTACKERS)]
    for number in range(VICTIMS):
        path = b"/v%d" % number
        request = b"GET %s HTTP/1.1\r\nHost: a.test\r\n\r\n" % path
        clients.append(client(port, until, request, victim(path)))
    await asyncio.gather(*clients)
    return tally


def free_port():
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return probe.getsockname()[1]


def await_port(port):
    until = time.monotonic() + 10
    while time.monotonic() < until:
        with contextlib.suppress(OSError), socket.create_connection((HOST, port), 1):
            return
        time.sleep(0.02)
    raise SystemExit(f"nothing listens on port {port}")


class Running:
    """The processes of one system; ended together."""

    def __init__(self, directory):
        self.directory = pathlib.Path(directory)
        self.processes = []

    def start(self, *command):
        self.processes.append(subprocess.Popen(list(map(str, command)), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))

    def write(self, name, text):
        path = self.directory / name
        path.write_text(text)
        return path

    def end(self):
        for process in self.processes:
            process.send_signal(signal.SIGTERM)
        for process in self.processes:
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def start(system, running, binaries, server, listen):
    """Starts `system` in front of the server at one port, listening at another."""
    here = f"{HOST}:{listen}"
    if system == "nginx":
        conf = running.write("nginx.conf", NGINX.format(dir=running.directory, server=f"{HOST}:{server}", listen=here))
        running.start("nginx", "-p", running.directory, "-c", conf)
    elif system.startswith("haproxy"):
        reuse = "always" if system == "haproxy-always" else "safe"
        conf = running.write("haproxy.cfg", HAPROXY.format(server=f"{HOST}:{server}", listen=here, reuse=reuse))
        running.start("haproxy", "-f", conf)
    else:
        site = f"site a.test servers={HOST}:{server}\n" if system == "servers" else ""
        conf = running.write("proxy.conf", f"listen {here}\nworkers 1\n{site}")
        running.start(binaries / "cloudbridge", "-c", conf)
        await_port(listen)
        if system == "agent":
            to = f"{HOST}:{server}"
            running.start(binaries / "cloudbridge-agent", "--host", "a.test", "--to", to, "-n", "8", here)
        elif system == "bridge":
            running.start(sys.executable, __file__, "--careless-bridge", listen)
    await_port(listen)


def measure(system, options):
    server, listen = free_port(), free_port()
    with tempfile.TemporaryDirectory() as directory:
        running = Running(directory)
        try:
            running.start(sys.executable, __file__, "--careless-server", server)
            await_port(server)
            start(system, running, options.binaries, server, listen)
            # The first bridges, and whatever else a system sets up.
            time.sleep(1)
            return asyncio.run(load(listen, options.seconds))
        finally:
            running.end()


def main():
    target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--binaries", type=pathlib.Path, default=target / "release")
    parser.add_argument("--careless-server", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--careless-bridge", type=int, help=argparse.SUPPRESS)
    parser.add_argument("systems", nargs="*", default=["nginx", "haproxy", "haproxy-always", "servers", "agent", "bridge"])
    options = parser.parse_args()
    if options.careless_server:
        return asyncio.run(careless_server(options.careless_server))
    if options.careless_bridge:
        return asyncio.run(careless_bridge(options.careless_bridge))
    print(f"{'system':<16}{'attacks':>10}{'victims':>10}{'poisoned':>10}{'failed':>10}{'per attack':>12}")
    for system in options.systems:
        tally = measure(system, options)
        each = tally.poisoned / max(tally.attacks, 1)
        print(f"{system:<16}{tally.attacks:>10}{tally.victims:>10}{tally.poisoned:>10}{tally.failed:>10}{each:>12.5f}", flush=True)


if __name__ == "__main__":
    main()
