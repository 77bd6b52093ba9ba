"""The application of the tests, as a WSGI program."""
import os
import sys

sys.path.insert(0, os.environ["CLIENTS"] + "/python")
import cloudbridge  # noqa: E402
from cloudbridge import serve_wsgi  # noqa: E402

cloudbridge.IDLE = int(os.environ.get("IDLE", cloudbridge.IDLE))


def pieces(count):
    for first in range(0, count, 1000):
        yield "".join("%015d\n" % number for number in range(first, min(first + 1000, count))).encode()


def app(environ, start_response):
    path, fields = environ["PATH_INFO"], [("Content-Type", "text/plain")]
    _, what, *rest = path.split("/")
    if what == "lines":
        start_response("200 OK", fields)
        return pieces(int(rest[0]))
    if what == "wait":
        print("waiting", flush=True)
        sys.stdin.readline()
        body = b"waited"
    elif what == "forged":
        environ["wsgi.input"].read()
        start_response("503 No", fields + [("CLOUDBRIDGE-Undelivered", "application")])
        return [b"forged"]
    elif what == "mebibytes":
        body = b"x" * (int(rest[0]) << 20)
    elif what == "fails":
        raise RuntimeError("on purpose")
    elif what == "breaks":
        start_response("200 OK", fields)
        return breaking()
    elif what == "short":
        start_response("200 OK", fields + [("Content-Length", "10")])
        return [b"short"]
    elif what == "writes":
        write = start_response("200 OK", fields)
        write(b"one ")
        write(b"two ")
        return [b"three"]
    elif what == "environ":
        names = ["REMOTE_ADDR", "wsgi.url_scheme", "SERVER_NAME", "SERVER_PORT", "QUERY_STRING", "HTTP_X_A", "HTTP_COOKIE", "wsgi.multithread"]
        body = " ".join(str(environ.get(name)) for name in names).encode()
    elif what == "fields":
        body = " ".join(name[5:].lower().replace("_", "-") for name in environ if name.startswith("HTTP_")).encode()
    elif what == "unread":
        body = b"not read"
    elif what == "lines-of":
        body = b"|".join(environ["wsgi.input"])
    elif environ["REQUEST_METHOD"] == "POST":
        body = environ["wsgi.input"].read()
    else:
        body = "{} {} for {}".format(environ["REQUEST_METHOD"], path, environ["HTTP_HOST"]).encode()
    start_response("200 OK", fields)
    return [body]


def breaking():
    yield b"half"
    raise RuntimeError("on purpose")


if __name__ == "__main__":
    serve_wsgi(app, os.environ["PROXIES"].split(","), threads=int(os.environ["CONNECTIONS"]))
    print("stopped", flush=True)
