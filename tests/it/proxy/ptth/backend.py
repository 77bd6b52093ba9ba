"""A backend of draft-kazuho-ptth-ptth-01, with the HTTP server of Python's library behind it.

    python3 backend.py PROXY:PORT ORIGIN CHANNELS [KEY]
"""
import http.server, socket, sys, threading, urllib.parse


class Answers(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        body = f"{self.command} {self.headers['Host']}{self.path} {body.decode()}".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_GET


def channel(proxy, origin, key):
    host, port = proxy.rsplit(":", 1)
    connection = socket.create_connection((host, int(port)))
    origin = urllib.parse.quote(origin, safe="")
    fields = [f"Host: {proxy}", "Connection: upgrade", "Upgrade: ptth", "ALPN: h2, http%2F1.1"]
    fields += [f"Authorization: Bearer {word}" for word in key]
    head = "\r\n".join([f"GET /.well-known/ptth/{origin}/ HTTP/1.1", *fields, "", ""])
    connection.sendall(head.encode())
    answer = b""
    while not answer.endswith(b"\r\n\r\n"):  # What follows is a request.
        answer += connection.recv(1) or sys.exit("the proxy has closed")
    is_open = answer.startswith(b"HTTP/1.1 101 ") and b"\r\nALPN: http%2F1.1\r\n" in answer
    return connection if is_open else sys.exit(answer.decode())


def serve(proxy, origin, key):
    while True:
        Answers(channel(proxy, origin, key), proxy, None)


for _ in range(int(sys.argv[3])):
    threading.Thread(target=serve, args=(sys.argv[1], sys.argv[2], sys.argv[4:])).start()
