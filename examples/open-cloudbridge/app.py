"""The web application: one page with a form, and what comes of it."""

import base64
import hashlib
import html
import threading
import time
import urllib.parse

import accounts

STYLE = """
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 44rem; margin: 2rem auto; padding: 0 1rem; }
input, textarea, button { font: inherit; padding: .3rem .6rem; max-width: 100%; box-sizing: border-box; }
textarea { width: 100%; }
pre, textarea { font: .88rem/1.45 ui-monospace, monospace; }
pre { overflow-wrap: anywhere; white-space: pre-wrap; border: 1px solid; border-radius: .4rem; padding: .7rem; }
.wrong { font-weight: bold; }
"""

PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<h1>{title}</h1>
{body}
</body>
</html>
"""

FORM = """<p>Your web application, wherever it runs, under a name below {domain}: it dials the proxy and needs no open port.</p>
{wrong}
<form method="post" action="/names">
<p><label for="name">The name</label> <input id="name" name="name" value="{name}" required minlength="3" maxlength="32"
 autocomplete="off" autocapitalize="none" spellcheck="false">.{domain} <button>Get it</button></p>
</form>
<h2>A key that is about to expire</h2>
<form method="post" action="/renew">
<p><label for="key">Your last key</label> <textarea id="key" name="key" rows="3" required autocomplete="off"
 spellcheck="false"></textarea> <button>Renew it</button></p>
</form>
"""

GIVEN = """<p>The key of <strong id="host">{host}</strong>, until {expires}. It is shown this once; who has it can serve this name.</p>
<textarea id="key" rows="5" readonly>{key}</textarea>
<h2>Serve it</h2>
<p>With your application on port 3000 of this machine:</p>
<pre id="command">BRIDGE_KEYS='{key}' cloudbridge-agent --to 3000 -n {bridges} --host {host} {proxy}</pre>
<p>To keep the key, put it into a file that only you can read, and use <code>--key-file FILE</code> in place of the variable.</p>
<p>Then it is at <a id="link" href="{scheme}://{host}{port}/">{scheme}://{host}{port}/</a>. What the proxy knows of it, and the last
errors, <a id="tenant" href="{scheme}://tenant.{domain}{port}/">you see with the key</a>.</p>
"""

TO_THE_FORM = '<p><a href="/">Go to the form.</a></p>'

TOO_MANY = "<p>Too many forms came from your address. Try again in an hour.</p>"

# The longest form, in bytes.
LONGEST = 4096

# How many forms one address may send in an hour, and how many addresses are known.
FORMS = 30
FORMS_OF_OTHERS = 100 * FORMS
HOUR = 3600
ADDRESSES = 10_000


class App:
    """A WSGI application. `proxy` is where agents dial."""

    def __init__(self, names, proxy):
        self._names, self._proxy, self._limiter = names, proxy, Limiter()

    def __call__(self, environ, start_response):
        status, title, body, *fields = self._answer(environ)
        page = PAGE.format(title=html.escape(title), style=STYLE, body=body).encode()
        start_response(status, [
            ("Content-Type", "text/html; charset=utf-8"),
            ("Content-Length", str(len(page))),
            ("Cache-Control", "no-store"),
            ("Content-Security-Policy", POLICY),
            ("X-Content-Type-Options", "nosniff"),
            ("Referrer-Policy", "same-origin"),
            ("Cross-Origin-Opener-Policy", "same-origin"),
            *fields,
        ])
        return [] if environ["REQUEST_METHOD"] == "HEAD" else [page]

    def _answer(self, environ):
        """Status, title and body, and further fields."""
        method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
        actions = {"/names": self._add, "/renew": self._renew}
        if path == "/" and method in ("GET", "HEAD"):
            return self._form()
        if path not in actions and path != "/":
            return "404 Not Found", "Page not found", TO_THE_FORM
        if method != "POST" or path == "/":
            allowed = "GET, HEAD" if path == "/" else "POST"
            return "405 Method Not Allowed", "Method not allowed", TO_THE_FORM, ("Allow", allowed)
        if not is_of_own_page(environ):
            return "403 Forbidden", "Forbidden", "<p>Another site's page has sent this form.</p>"
        fields = read_form(environ)
        if fields is None:
            return "400 Bad Request", "Bad request", TO_THE_FORM
        if not self._limiter.allows(accounts.network_of(environ["REMOTE_ADDR"])):
            again = ("Retry-After", str(HOUR))
            return "429 Too Many Requests", "Too many requests", TOO_MANY, again
        return actions[path](environ, fields)

    def _form(self, status="200 OK", wrong="", name=""):
        shown = f'<p class="wrong" role="alert">{html.escape(wrong)}</p>' if wrong else ""
        body = FORM.format(domain=html.escape(self._names.domain), wrong=shown, name=html.escape(name))
        return status, "A name for your application", body

    def _add(self, environ, fields):
        name = fields.get("name", "")
        try:
            return self._given(environ, *self._names.add(name, environ["REMOTE_ADDR"]))
        except accounts.Refused as refused:
            return self._form("409 Conflict", str(refused), name)

    def _renew(self, environ, fields):
        try:
            return self._given(environ, *self._names.renew(fields.get("key", "")))
        except accounts.Refused as refused:
            return self._form("409 Conflict", str(refused))

    def _given(self, environ, name, key, expires):
        scheme, port = environ["wsgi.url_scheme"], environ["SERVER_PORT"]
        is_usual = (scheme, port) in (("http", "80"), ("https", "443"))
        given = {
            "host": f"{name}.{self._names.domain}",
            "domain": self._names.domain,
            "key": key,
            "expires": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(expires)),
            "bridges": str(accounts.BRIDGES),
            "proxy": self._proxy,
            "scheme": scheme,
            "port": "" if is_usual else f":{port}",
        }
        body = GIVEN.format(**{member: html.escape(text) for member, text in given.items()})
        return "200 OK", f"{name} is yours", body


class Limiter:
    """How many forms an address has sent in this hour."""

    def __init__(self, now=time.monotonic):
        self._now, self._lock, self._counts, self._until = now, threading.Lock(), {}, 0.0

    def allows(self, address):
        with self._lock:
            if self._now() >= self._until:
                self._counts, self._until = {}, self._now() + HOUR
            if address not in self._counts and len(self._counts) >= ADDRESSES:
                # All that there is no room for are one, and have more.
                address = None
            self._counts[address] = self._counts.get(address, 0) + 1
            return self._counts[address] <= (FORMS if address is not None else FORMS_OF_OTHERS)


def is_of_own_page(environ):
    """Whether a browser says that the form is of this page, or says nothing. The pages below the domain are strangers'."""
    site, origin = environ.get("HTTP_SEC_FETCH_SITE"), environ.get("HTTP_ORIGIN")
    if site is not None and site not in ("same-origin", "none"):
        return False
    return origin is None or origin == f"{environ['wsgi.url_scheme']}://{environ.get('HTTP_HOST', '')}"


def read_form(environ):
    """The fields of a form, or None if it is none or too long."""
    length, kind = environ.get("CONTENT_LENGTH", ""), environ.get("CONTENT_TYPE", "").partition(";")[0].strip().lower()
    if kind != "application/x-www-form-urlencoded" or not length.isascii() or not length.isdigit() or int(length) > LONGEST:
        return None
    try:
        text = environ["wsgi.input"].read(int(length)).decode("ascii")
        return dict(urllib.parse.parse_qsl(text, max_num_fields=10, errors="strict"))
    except ValueError:
        return None


def hash_of(text):
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


POLICY = (
    f"default-src 'none'; style-src 'sha256-{hash_of(STYLE)}'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
