"""python3 examples/open-cloudbridge/tests.py"""

import io
import json
import pathlib
import socket
import tempfile
import threading
import unittest

import accounts
import app
import authorise
import keys

# The vectors of doc/protocol.md, with the secret `sesame`.
CAVEATS = ["host=www.example.com", "prefix=/app", "method=GET/HEAD", "bridges=2", "expiry=1750000000"]

DOMAIN = "t.example"
DOMAIN_KEY = f"v2:{'0' * 64}:1700000000:1800000000::{DOMAIN}"


class Keys(unittest.TestCase):
    def test_a_chain_is_that_of_the_protocol(self):
        import hashlib
        import hmac

        signed = "v2:1700000000:1800000000::example.com"
        digits = hmac.new(b"sesame", signed.encode(), hashlib.sha256).hexdigest()
        root = f"v2:{digits}:{signed.removeprefix('v2:')}"
        last = "d60f590893bbfa6278fd44442b74c0319fd6ec30c51e8654ab03baaf26774b1a"
        whole = f"v3:{last}:{signed}+{'+'.join(CAVEATS)}"
        self.assertEqual(keys.narrow(root, CAVEATS), whole)
        self.assertEqual(keys.narrow(keys.narrow(root, CAVEATS[:2]), CAVEATS[2:]), whole, "in two steps")

    def test_what_is_no_key_is_not_narrowed(self):
        for text in ["", "v2", "x:y", "::example.com", "v2::1:2::example.com", "0" * 64]:
            with self.assertRaises(ValueError, msg=text):
                keys.narrow(text, CAVEATS)


class Names(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder, self.now = pathlib.Path(folder.name), 1_750_000_000
        self.names = accounts.Accounts(self.folder / "accounts.sqlite", DOMAIN, DOMAIN_KEY, lambda: self.now)

    def refused(self, name, address="192.0.2.1"):
        with self.assertRaises(accounts.Refused, msg=name) as refused:
            self.names.add(name, address)
        return str(refused.exception)

    def test_a_name_gets_a_key_for_itself_alone(self):
        name, key, expires = self.names.add(" Shop ", "192.0.2.1")
        self.assertEqual((name, expires), ("shop", self.now + accounts.LIFETIME))
        caveats = f"+host=shop.{DOMAIN}+bridges=8+expiry={expires}"
        self.assertTrue(key.startswith("v3:") and key.endswith(caveats), key)
        self.assertEqual(self.refused("shop", "192.0.2.2"), "The name shop is taken.")
        self.assertNotIn(key.split(":")[1].encode(), (self.folder / "accounts.sqlite").read_bytes())

    def test_hostile_names_are_refused(self):
        for name in ["", "ab", "a" * 33, "-abc", "abc-", "1abc", "a.b.c", "*.abc", "abc+bridges=9", "<b>abc", "xn--abc",
                     "ab--cd", "äbc", "ab\nc", "a b c", "abc\0", "../abc", "ａｂｃ", "abc:80", "'; DROP TABLE accounts"]:
            self.assertIn("3 to 32", self.refused(name))
        for name in ["www", "WWW", "tenant", "admin", "mta-sts"]:
            self.assertIn("reserved", self.refused(name))

    def test_an_address_has_a_few_names(self):
        for name in ["one", "two", "three"]:
            self.names.add(name, "2001:db8::1")
        self.assertIn("3 names", self.refused("four", "2001:db8::ffff"))
        self.names.add("four", "2001:db8:0:1::1")

    def test_a_key_is_renewed_by_its_holder(self):
        _, key, expires = self.names.add("shop", "192.0.2.1")
        self.now += 20 * accounts.DAY
        name, new, later = self.names.renew(f" {key}\n")
        self.assertEqual((name, later), ("shop", self.now + accounts.LIFETIME))
        for old in [key, "", "x", new.replace("shop", "shed")]:
            with self.assertRaises(accounts.Refused):
                self.names.renew(old)
        self.names.suspend("shop", "spam")
        with self.assertRaisesRegex(accounts.Refused, "spam"):
            self.names.renew(new)
        self.names.suspend("shop", None)
        self.assertFalse(self.asks_with(key)["allow"], "a leaked key is taken back so")
        self.assertTrue(self.asks_with(new)["allow"])

    def asks_with(self, *found, hosts=("any",)):
        """The answer for a bridge with these keys."""
        described = [{"root": DOMAIN, "narrowed": key.split("+")[1:]} for key in found]
        return authorise.decide({"hosts": list(hosts), "keys": described}, self.names)

    def test_who_had_a_name_before_does_not_have_it_again(self):
        _, old, expires = self.names.add("shop", "192.0.2.1")
        self.names.remove("shop")
        self.assertFalse(self.asks_with(old)["allow"])
        self.now += 1
        _, new, _ = self.names.add("shop", "192.0.2.2")
        self.assertTrue(self.asks_with(new)["allow"])
        for key in [old, f"{old}+expiry={expires + 1}", f"{old}+host=shop.{DOMAIN}+expiry={expires + 1}"]:
            self.assertFalse(self.asks_with(key)["allow"], key)

    def test_a_name_is_free_again_long_after_its_key_has_expired(self):
        self.names.add("shop", "192.0.2.1")
        self.now += accounts.LIFETIME + accounts.KEPT
        self.refused("shop", "192.0.2.2")
        self.now += 1
        self.names.add("shop", "192.0.2.2")
        self.names.suspend("shop", "spam")
        self.now += 10 * accounts.LIFETIME
        self.refused("shop")

    def test_the_proxy_is_told_who_may_come(self):
        _, shop, _ = self.names.add("shop", "192.0.2.1")
        _, shed, _ = self.names.add("shed", "192.0.2.1")
        good = {"allow": True, "limits": authorise.LIMITS}
        self.assertEqual(self.asks_with(DOMAIN_KEY), {"allow": True})
        for key in [shop, f"{shop}+host=www.shop.{DOMAIN}+bridges=1", f"{shop}+expiry=1"]:
            self.assertEqual(self.asks_with(key), good, key)
        self.assertEqual(self.asks_with(shop, shed), good)
        other = keys.narrow(DOMAIN_KEY, [f"host=nobody.{DOMAIN}", "expiry=2000000000"])
        for found in [(other,), (shop, other), (other, shop), (keys.narrow(DOMAIN_KEY, ["bridges=8", f"host=shop.{DOMAIN}"]),)]:
            self.assertFalse(self.asks_with(*found)["allow"], found)
        for question in [{}, [], None, {"keys": []}, {"keys": "shop"}, {"keys": [None]}, {"keys": [{"root": DOMAIN}]},
                         {"keys": [{"root": "x.example", "narrowed": []}]}, {"keys": [{"root": DOMAIN, "narrowed": [None]}]}]:
            self.assertFalse(authorise.decide(question, self.names)["allow"], question)
        self.names.suspend("shop", "spam")
        self.assertEqual(self.asks_with(shed, shop), {"allow": False, "reason": "the name shop is suspended: spam"})
        self.names.suspend("shop", None)
        self.assertEqual(self.asks_with(shop), good)

    def test_questions_come_over_a_socket(self):
        path = str(self.folder / "authorise.sock")
        server = authorise.Server(path, self.names)
        self.addCleanup(server.server_close)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        self.addCleanup(server.shutdown)
        for body, begins in [
            (json.dumps({"keys": [{"root": DOMAIN, "narrowed": []}]}).encode(), b"HTTP/1.1 200 OK\r\n"),
            (b"[", b"HTTP/1.1 400 "),
        ]:
            with socket.socket(socket.AF_UNIX) as line:
                line.settimeout(30)
                line.connect(path)
                head = f"POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n"
                line.sendall(head.encode() + body)
                answer = b"".join(iter(lambda: line.recv(4096), b""))
                self.assertTrue(answer.startswith(begins), answer)
                if begins.endswith(b"OK\r\n"):
                    self.assertIn(b"\r\nCache-Control: max-age=10\r\n", answer)
                    self.assertTrue(answer.endswith(b'\r\n\r\n{"allow": true}'), answer)


class Pages(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        names = accounts.Accounts(pathlib.Path(folder.name) / "accounts.sqlite", DOMAIN, DOMAIN_KEY)
        self.app = app.App(names, "proxy.example:8079")

    def ask(self, method="POST", path="/names", form="", **fields):
        environ = {
            "REQUEST_METHOD": method, "PATH_INFO": path, "REMOTE_ADDR": "192.0.2.1", "SERVER_PORT": "80",
            "wsgi.url_scheme": "http", "HTTP_HOST": DOMAIN, "CONTENT_TYPE": "application/x-www-form-urlencoded",
            "CONTENT_LENGTH": str(len(form)), "wsgi.input": io.BytesIO(form.encode()),
        }
        answer = {}
        environ.update(fields)
        body = b"".join(self.app(environ, lambda status, lines: answer.update(dict(lines), status=status)))
        return answer["status"], body.decode(), answer

    def test_the_form_gives_a_key_and_a_command(self):
        status, page, fields = self.ask("GET", "/")
        self.assertEqual(status, "200 OK")
        self.assertIn("default-src 'none'", fields["Content-Security-Policy"])
        status, page, fields = self.ask(form="name=shop")
        self.assertEqual((status, fields["Cache-Control"]), ("200 OK", "no-store"))
        self.assertIn("cloudbridge-agent --to 3000 -n 8 --host shop.t.example proxy.example:8079", page)

    def test_what_a_visitor_writes_is_text(self):
        status, page, _ = self.ask(form="name=%22%3E%3Cscript%3Ealert(1)%3C/script%3E")
        self.assertEqual(status, "409 Conflict")
        self.assertNotIn("<script", page)
        self.assertIn("&quot;&gt;&lt;script&gt;", page)

    def test_forms_of_other_pages_and_of_other_kinds_are_refused(self):
        for fields in [{"HTTP_SEC_FETCH_SITE": "same-site"}, {"HTTP_SEC_FETCH_SITE": "cross-site"},
                       {"HTTP_ORIGIN": f"http://shop.{DOMAIN}"}, {"HTTP_ORIGIN": "null"}]:
            self.assertEqual(self.ask(form="name=shop", **fields)[0], "403 Forbidden", fields)
        for fields in [{"CONTENT_TYPE": "text/plain"}, {"CONTENT_LENGTH": "99999"}, {"CONTENT_LENGTH": ""},
                       {"CONTENT_LENGTH": "-1"}]:
            self.assertEqual(self.ask(form="name=shop", **fields)[0], "400 Bad Request", fields)
        # RFC 9110, section 15.5.6: such an answer says what is allowed.
        for method, path, allowed in [("GET", "/names", "POST"), ("POST", "/", "GET, HEAD")]:
            status, _, fields = self.ask(method, path)
            self.assertEqual((status, fields["Allow"]), ("405 Method Not Allowed", allowed))
        self.assertEqual(self.ask("GET", "/other")[0], "404 Not Found")
        own = {"HTTP_ORIGIN": f"http://{DOMAIN}", "HTTP_SEC_FETCH_SITE": "same-origin"}
        self.assertEqual(self.ask(form="name=shop", **own)[0], "200 OK")

    def test_an_address_may_send_some_forms_an_hour(self):
        said = [self.ask(form="name=www")[0][:3] for _ in range(app.FORMS + 1)]
        self.assertEqual(said, ["409"] * app.FORMS + ["429"])
        self.assertEqual(self.ask(form="name=www")[2]["Retry-After"], str(app.HOUR))
        now = [0.0]
        limiter = app.Limiter(lambda: now[0])
        self.assertTrue(all(limiter.allows(number) for number in range(app.ADDRESSES + app.FORMS)))
        others = [limiter.allows(f"another {number}") for number in range(app.FORMS_OF_OTHERS)]
        self.assertEqual(others.index(False), app.FORMS_OF_OTHERS - app.FORMS)
        now[0] = app.HOUR + 1
        self.assertTrue(limiter.allows("another"))


if __name__ == "__main__":
    unittest.main()
