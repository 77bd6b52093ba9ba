"""Answers the proxy's question whether a bridge may come (doc/open.md, `authorise`), at a Unix socket.

The proxy has checked the key before it asks, so here it is only about the account: is it there, is it suspended, and how
much may it have."""

import http.server
import json
import os
import socketserver

# What one name may have at once, and in a second.
LIMITS = {"bridges": 8, "waiting": 50, "requests-per-second": 50, "bytes-per-second": 2_000_000}

# For how many seconds the proxy may keep an answer. It asks again when a bridge comes later, or has served a request later.
MAX_AGE = 10

# The longest question.
LONGEST = 64 * 1024


def decide(question, accounts):
    """The answer to a question."""
    hosts = question.get("hosts") if isinstance(question, dict) else None
    if not isinstance(hosts, list) or not hosts:
        return no("the question names no host")
    below = f".{accounts.domain}"
    for host in hosts:
        if host == accounts.domain:
            # This program itself; nobody else has a key for it.
            continue
        if not isinstance(host, str) or not host.endswith(below):
            return no("this host is not below the domain")
        name = host.removesuffix(below).rpartition(".")[2]
        is_there, suspended = accounts.state(name)
        if not is_there:
            return no(f"nobody has the name {name}")
        if suspended is not None:
            return no(f"the name {name} is suspended: {suspended}")
    is_own = hosts == [accounts.domain]
    return {"allow": True} if is_own else {"allow": True, "limits": LIMITS}


def no(reason):
    return {"allow": False, "reason": reason}


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 30

    def do_POST(self):
        length = self.headers.get("Content-Length", "")
        if not length.isascii() or not length.isdigit() or int(length) > LONGEST:
            self.close_connection = True
            return self.answer(400, {"error": "a question has a length, and no long one"})
        try:
            question = json.loads(self.rfile.read(int(length)))
        except ValueError:
            return self.answer(400, {"error": "a question is JSON"})
        self.answer(200, decide(question, self.server.accounts), f"max-age={self.server.max_age}")

    def answer(self, status, body, cache="no-store"):
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.send_header("Cache-Control", cache)
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_):
        """The proxy logs what it refuses."""


class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    """At the socket `path`. Who may connect to it is for the permissions of its folder to say."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, path, accounts, max_age=MAX_AGE):
        self.accounts, self.max_age = accounts, max_age
        if os.path.exists(path):
            os.unlink(path)
        super().__init__(path, Handler)
