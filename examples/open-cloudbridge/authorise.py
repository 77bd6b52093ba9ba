"""Answers the proxy's question whether a bridge may come (doc/open.md, `authorise`), at a Unix socket.

The proxy has checked the keys before it asks, so here it is only about the accounts: are they there, are these their present keys,
are they suspended, and how much may they have."""

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
    found = question.get("keys") if isinstance(question, dict) else None
    if not isinstance(found, list) or not found:
        return no("the question names no key")
    is_own = True
    # Each of them: a bridge may show several, and all of its hosts are served by what is said here.
    for key in found:
        if not isinstance(key, dict) or key.get("root") != accounts.domain or not isinstance(key.get("narrowed"), list):
            return no("this is no key of this domain")
        # The domain's own key is this program's, and nobody else has it.
        if key["narrowed"]:
            is_own = False
            reason = wrong_with(key["narrowed"], accounts)
            if reason:
                return no(reason)
    return {"allow": True} if is_own else {"allow": True, "limits": LIMITS}


def wrong_with(narrowed, accounts):
    """Why a key is not let in, or None. What its holder has added is behind what we have written, and changes nothing here."""
    host = str(narrowed[0])
    name = host.removeprefix("host=").removesuffix(f".{accounts.domain}")
    state = accounts.state(name)
    if host != f"host={name}.{accounts.domain}" or state is None:
        return f"nobody has the name {name}"
    expires, suspended = state
    if suspended is not None:
        return f"the name {name} is suspended: {suspended}"
    # Of a key that was renewed, or of somebody who had the name before.
    if next((one for one in narrowed if str(one).startswith("expiry=")), None) != f"expiry={expires}":
        return f"this is not the present key of the name {name}"
    return None


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
