"""Processes, cores, CPU time and memory of the measured systems, as /proc reports them."""

import os
import platform
import re
import resource
import signal
import socket
import subprocess
import time
from pathlib import Path

# How long a system may take to start and to stop.
START_SECONDS = 30
STOP_SECONDS = 3
# Polling interval while waiting for a condition.
LOOK_SECONDS = 0.02


class Trouble(Exception):
    """The run cannot continue; the text tells the user why."""


def raise_descriptor_limit():
    """Raises this process's soft descriptor limit (children inherit it) to the hard limit, and returns it."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def cores():
    """The cores for the proxy and for load and backends, as two sets: disjoint if there is more than one core."""
    mine = sorted(os.sched_getaffinity(0))
    return {mine[0]}, set(mine[1:]) or set(mine)


def free_port():
    """A loopback port that is free at this moment."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def until(condition, what, seconds=START_SECONDS):
    """Waits until `condition()` is true; raises Trouble that names `what` if that takes too long."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise Trouble(f"{what}: not within {seconds} s")
        time.sleep(LOOK_SECONDS)


class Process:
    """A program pinned to cores, with its output in a file; its children are counted with it."""

    def __init__(self, argv, on, log):
        self.argv = [str(part) for part in argv]
        self.log = Path(log)
        with self.log.open("wb") as out:
            self.child = subprocess.Popen(
                self.argv,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                preexec_fn=lambda: os.sched_setaffinity(0, on),
            )

    def said(self):
        """Everything it has printed so far."""
        return self.log.read_text(errors="replace")

    def check(self):
        """Raises Trouble if it has ended."""
        if self.child.poll() is not None:
            raise Trouble(f"{self.argv[0]} ended with {self.child.returncode}: {self.said().strip()[-2000:]}")

    def pids(self):
        """The process and its descendants."""
        found, new = [], [self.child.pid]
        while new:
            pid = new.pop()
            found.append(pid)
            for children in Path(f"/proc/{pid}/task").glob("*/children"):
                try:
                    new += [int(word) for word in children.read_text().split()]
                except OSError:
                    pass
        return found

    def cpu(self):
        """CPU time so far: {"total", "user"} in seconds.

        The total is the scheduler's, in nanoseconds (/proc/PID/task/*/schedstat). User time is only known in ticks
        of 10 ms (/proc/PID/stat), which is precise enough to split seconds."""
        self.check()
        nanoseconds = ticks = 0
        for pid in self.pids():
            for task in Path(f"/proc/{pid}/task").iterdir():
                nanoseconds += int((task / "schedstat").read_text().split()[0])
            # The name, in parentheses, may contain spaces; utime is field 14.
            ticks += int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11])
        return {"total": nanoseconds / 1e9, "user": ticks / os.sysconf("SC_CLK_TCK")}

    def private(self):
        """Private memory, in bytes (Private_* of smaps_rollup)."""
        total = 0
        for pid in self.pids():
            text = Path(f"/proc/{pid}/smaps_rollup").read_text()
            total += sum(int(kib) for kib in re.findall(r"^Private_\w+:\s+(\d+) kB", text, re.M))
        return total * 1024

    def stop(self):
        """Ends it with TERM, then with KILL."""
        if self.child.poll() is None:
            self.child.send_signal(signal.SIGTERM)
            try:
                self.child.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self.child.kill()
        self.child.wait()


class Together:
    """Several processes, counted as one."""

    def __init__(self):
        self.processes = []

    def start(self, *arguments):
        """Starts one more."""
        self.processes.append(Process(*arguments))

    def said(self):
        """Everything they have printed so far."""
        return "".join(process.said() for process in self.processes)

    def check(self):
        """Raises Trouble if one has ended."""
        for process in self.processes:
            process.check()

    def cpu(self):
        """CPU time so far, as `Process.cpu`."""
        times = [process.cpu() for process in self.processes]
        return {key: sum(time[key] for time in times) for key in ("total", "user")}

    def private(self):
        """Private memory, in bytes."""
        return sum(process.private() for process in self.processes)

    def stop(self):
        """Ends them."""
        for process in self.processes:
            process.stop()


def output_of(argv):
    """The first line that a program prints, or None if there is no such program."""
    try:
        done = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    except OSError:
        return None
    return (done.stdout.strip().splitlines() or [""])[0]


def describe():
    """The description of the machine that precedes the results."""
    cpuinfo = Path("/proc/cpuinfo").read_text()
    model = re.search(r"^model name\s*:\s*(.*)$", cpuinfo, re.M)
    memory = int(re.search(r"^MemTotal:\s+(\d+)", Path("/proc/meminfo").read_text(), re.M)[1])
    return {
        "machine": platform.node() or "unnamed",
        "cpu": model[1] if model else platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(memory / 2**20, 1),
        "kernel": platform.release(),
        # Above a few tenths, other programs were running, and the figures are less reliable.
        "load_before": round(os.getloadavg()[0], 2),
        "descriptors": resource.getrlimit(resource.RLIMIT_NOFILE)[0],
    }
