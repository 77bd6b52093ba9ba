"""The loads: each runs to its end on the load's cores and gives its counts and latencies (in microseconds)."""

import json
import os
import subprocess
from pathlib import Path

from machine import Trouble, output_of

HERE = Path(__file__).resolve().parent
# What a load may take beyond the time it was given.
GRACE_SECONDS = 60

WRK_HELP = "wrk is missing, and without it nothing can be measured (apt-get install wrk)"


def check():
    """Trouble if the load generator is missing."""
    if output_of(["wrk", "-v"]) is None:
        raise Trouble(WRK_HELP)


def result_of(argv, on, seconds):
    """Runs a load and reads the line `RESULT {json}` it prints."""
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
    """As many requests as go, each connection with one at a time."""
    argv = ["wrk", "-t1", f"-c{connections}", f"-d{env.seconds}s", "-s", HERE / "wrk.lua"]
    for header in (f"Host: {env.host}", *headers):
        argv += ["-H", header]
    argv.append(f"http://127.0.0.1:{env.port}{path}")
    return result_of(argv, env.load_cores, env.seconds)


def ours(env, kind, **options):
    """A load of bench/src/bin/load.rs; an option that is True stands alone."""
    argv = [env.tools / "load", kind, "--to", f"127.0.0.1:{env.port}", "--host", env.host, "--seconds", env.seconds]
    for name, value in options.items():
        argv += [f"--{name}"] if value is True else [f"--{name}", value]
    return result_of(argv, env.load_cores, env.seconds)
