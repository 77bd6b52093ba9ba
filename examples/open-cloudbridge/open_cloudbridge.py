#!/usr/bin/env python3
"""A sign-up page for a domain: a visitor asks for a name below it and gets a host key.

It holds one host key, that of the domain, and no secret of the proxy's. README.md has the rest."""

import argparse
import pathlib
import sys
import threading
import time

import accounts
import app
import authorise

try:
    import cloudbridge
except ImportError:
    sys.path.append(str(pathlib.Path(__file__).resolve().parents[2] / "src/clients/python"))
    import cloudbridge


def main():
    options = read_options()
    folder, key_file = options.folder, options.folder / "domain.key"
    key = key_file.read_text().strip()
    names = accounts.Accounts(folder / "accounts.sqlite", options.domain, key)
    if options.command == "serve":
        return serve(options, names, key)
    if options.command == "list":
        for name, address, created, expires, suspended in names.all():
            state = f"suspended: {suspended}" if suspended is not None else "good" if expires > time.time() else "expired"
            print(f"{name}  from {address}  since {day(created)}  until {day(expires)}  {state}")
        return 0
    if options.command == "remove":
        is_done = names.remove(options.name)
    else:
        is_done = names.suspend(options.name, options.reason if options.command == "suspend" else None)
    if not is_done:
        print(f"nobody has the name {options.name}", file=sys.stderr)
    return 0 if is_done else 1


def serve(options, names, key):
    """Serves the page over bridges, and the proxy's questions, until SIGTERM or SIGINT."""
    questions = authorise.Server(str(options.folder / "authorise.sock"), names, options.max_age)
    threading.Thread(target=questions.serve_forever, daemon=True).start()
    page = app.App(names, options.agents_dial or options.proxy)
    cloudbridge.serve_wsgi(
        page, [options.proxy], [options.domain], [key], threads=options.threads, forwarded_hops=options.forwarded_hops
    )
    return 0


def read_options():
    parser = argparse.ArgumentParser(description="A sign-up page for a domain, served over bridges.")
    parser.add_argument("--folder", type=pathlib.Path, required=True, help="where domain.key is, and accounts.sqlite will be")
    parser.add_argument("--domain", required=True, help="the domain that the key is for")
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("serve", help="serve the page, and the proxy's questions at authorise.sock in the folder")
    command.add_argument("--proxy", required=True, help="where to dial the proxy")
    command.add_argument("--agents-dial", help="what visitors' agents dial (default: as --proxy)")
    command.add_argument("--threads", type=int, default=4, help="requests at once (default %(default)s)")
    command.add_argument("--forwarded-hops", type=int, default=1, help="proxies in front, with cloudbridge (default %(default)s)")
    command.add_argument("--max-age", type=int, default=authorise.MAX_AGE, help="for how long the proxy may keep an answer, in seconds (default %(default)s)")
    commands.add_parser("list", help="print all names")
    command = commands.add_parser("suspend", help="close a name's bridges, and let none in")
    command.add_argument("name")
    command.add_argument("reason", nargs="?", default="ask the operator", help="what its backends are told, in one line")
    commands.add_parser("resume", help="let a suspended name in again").add_argument("name")
    commands.add_parser("remove", help="forget a name: others may take it").add_argument("name")
    return parser.parse_args()


def day(seconds):
    return time.strftime("%Y-%m-%d", time.gmtime(seconds))


if __name__ == "__main__":
    sys.exit(main())
