"""The loads: each runs on the load's cores and returns its counts and latencies (in microseconds)."""

import json
import os
import subprocess
from pathlib import Path

from machine import Trouble, output_of

HERE = Path(__file__).resolve().parent
# How much longer than its measured time a load may take.
GRACE_SECONDS = 60

WRK_HELP = "wrk is required and is not installed (apt-get install wrk)"


def check():
    """Raises Trouble if the load generator is missing."""
    if output_of(["wrk", "-v"]) is None:
        raise Trouble(WRK_HELP)


def result_of(argv, on, seconds):
    """Runs a load and parses the line `RESULT {json}` that it prints."""
    argv = [str(part) for part in argv]
    done = subprocess.run(
        argv,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=seconds + GRACE_SECONDS,
        preexec_fn=lambda: os.sched_setaffinity(0, on),
        check=False,
    )
    for line in done.stdout.splitlines():
        if line.startswith("RESULT "):
            return json.loads(line.removeprefix("RESULT "))
    raise Trouble(f"{' '.join(argv)}: no result:\n{done.stdout[-2000:]}")


def wrk(env, path="/", connections=64, headers=()):
    """As many requests as possible, one at a time per connection."""
    argv = ["wrk", "-t1", f"-c{connections}", f"-d{env.seconds}s", "-s", HERE / "wrk.lua"]
    for header in (f"Host: {env.host}", *headers):
        argv += ["-H", header]
    argv.append(f"{'https' if env.plan.tls else 'http'}://127.0.0.1:{env.port}{path}")
    return result_of(argv, env.load_cores, env.seconds)


def wrk_hosts(env, hosts, connections):
    """As `wrk`, each request for another of so many hosts, at random."""
    argv = ["wrk", "-t1", f"-c{connections}", f"-d{env.seconds}s", "-s", HERE / "tenants.lua"]
    return result_of([*argv, f"http://127.0.0.1:{env.port}/", "--", hosts], env.load_cores, env.seconds)


def wrk_announced(env, connections):
    """As `wrk`; each connection begins with a PROXY header if the system expects one."""
    argv = ["wrk", "-t1", f"-c{connections}", f"-d{env.seconds}s", "-s", HERE / "announced.lua", "-H", f"Host: {env.host}"]
    argv += [f"http://127.0.0.1:{env.port}/", "--", connections if env.system.announced else 0]
    return result_of(argv, env.load_cores, env.seconds)


def ours(env, kind, **options):
    """A load of bench/src/bin/load.rs; an option that is True is a flag without a value."""
    argv = [env.tools / "load", kind, "--host", env.host, "--seconds", env.seconds]
    for address in env.system.clients(env):
        argv += ["--to", address]
    for name, value in options.items():
        argv += [f"--{name}"] if value is True else [f"--{name}", value]
    return result_of(argv, env.load_cores, env.seconds)
