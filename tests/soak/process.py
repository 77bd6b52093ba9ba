"""Programs that the soak runs, and what /proc says of them."""

import collections
import contextlib
import os
import re
import signal
import subprocess
import time
from pathlib import Path

# Seconds for a program to end after TERM, or to be ready.
PROMPT = 40


class Trouble(Exception):
    """The run cannot go on; the text says why."""


def until(condition, what, seconds=PROMPT):
    """Waits until `condition()` holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise Trouble(f"not within {seconds} s: {what}")
        time.sleep(0.02)


class Process:
    """A program with its output in a file."""

    def __init__(self, name, argv, log, environment=None):
        self.name, self.log = name, Path(log)
        with self.log.open("ab") as out:
            self.start = out.tell()
            self.child = subprocess.Popen(
                [str(word) for word in argv],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                env=os.environ | (environment or {}),
            )

    @property
    def pid(self):
        """Its process id."""
        return self.child.pid

    def tree(self):
        """It and its descendants: other proxies have a master and workers."""
        found, new = [], [self.pid]
        while new:
            pid = new.pop()
            found.append(pid)
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                new += map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())
        return found

    def signal(self, number):
        """Sends it a signal. A stop and what follows it are for its descendants too."""
        whole = number in (signal.SIGSTOP, signal.SIGCONT, signal.SIGKILL)
        for pid in self.tree() if whole else [self.pid]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def is_alive(self):
        """Whether it runs."""
        return self.child.poll() is None

    def terminate(self, number):
        """Sends it the signal that ends it in good order, and waits. Whether it ended well."""
        self.signal(number)
        try:
            return self.child.wait(PROMPT) == 0
        except subprocess.TimeoutExpired:
            self.kill()
            return False

    def kill(self):
        """KILL; nothing if it has ended."""
        if self.is_alive():
            self.signal(signal.SIGKILL)
        self.child.wait()

    def await_ready(self):
        """Waits until it has printed a line."""
        until(lambda: self.log.stat().st_size > self.start or not self.is_alive(), f"{self.name} is ready")

    def said(self):
        """The end of its output."""
        return self.log.read_text(errors="replace")[-2000:]

    def descriptors(self):
        """How many it has open, by kind: `socket`, `pipe`, `file`."""
        kinds = collections.Counter()
        folder = Path(f"/proc/{self.pid}/fd")
        for number in os.listdir(folder):
            try:
                kinds[re.match(r"socket|pipe|", os.readlink(folder / number))[0] or "file"] += 1
            except FileNotFoundError:
                pass
        return kinds

    def memory(self):
        """Its private memory, in KiB."""
        text = Path(f"/proc/{self.pid}/smaps_rollup").read_text()
        return sum(int(size) for size in re.findall(r"^Private_\w+:\s+(\d+) kB", text, re.M))
