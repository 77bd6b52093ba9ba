"""The processes of a soak: proxies, applications, agents and libraries; and what can happen to them."""

import asyncio
import collections
import contextlib
import http.client
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import network
import systems
from process import Process, Trouble, until

HERE = Path(__file__).resolve().parent
# Requests that an application takes at once: the agent's places, and the bridges that it parks at each proxy.
PLACES = 8
# Bytes of the disk that the proxies' logs are on.
DISK = 64 << 20
LIBRARIES = {
    "python": [sys.executable, HERE / "application.py", "{journal}", "--bridges"],
    "node": ["node", HERE / "application.js", "{journal}"],
    "ruby": ["ruby", HERE / "application.rb", "{journal}"],
    "rust": ["{tools}/examples/soak-application", "{journal}"],
}
# Bridges of a library at each proxy, as its program has them.
LIBRARY_BRIDGES = 4


def free_port():
    """A port that nobody has at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Member:
    """An application with an agent in front of it, if the system needs one."""

    def __init__(self, world, name, far):
        self.world, self.name, self.far = world, name, far
        self.port = free_port()
        self.journal = world.folder / f"{name}.journal"
        self.application = self.agent = None

    @property
    def address(self):
        """Where its application is, for a proxy that dials it."""
        return f"{network.FAR if self.far else '127.0.0.1'}:{self.port}"

    def start_application(self):
        """Starts it; it is there when this returns."""
        where = "0.0.0.0" if self.far else "127.0.0.1"
        words = [sys.executable, HERE / "application.py", self.journal, "--listen", f"{where}:{self.port}"]
        self.application = self.world.start(f"{self.name}-application", words, self.far)
        self.application.await_ready()

    def start_agent(self):
        """Starts it."""
        if self.world.system.bridged:
            proxies = [f"{network.NEAR if self.far else '127.0.0.1'}:{proxy.port}" for proxy in self.world.proxies]
            words = [self.world.system.tools / "cloudbridge-agent", "--to", f"127.0.0.1:{self.port}"]
            words += ["--host", systems.HOST, "-n", PLACES, *proxies]
            self.agent = self.world.start(f"{self.name}-agent", words, self.far)


class Library:
    """An application over one of the libraries for other languages, without a port."""

    def __init__(self, world, language):
        self.world, self.language, self.name = world, language, f"library-{language}"
        self.host = f"{language}.{systems.HOST}"
        self.journal = world.folder / f"{self.name}.journal"
        self.program = None

    def words(self):
        """The beginning of its command line."""
        return [str(word).format(journal=self.journal, tools=self.world.system.tools) for word in LIBRARIES[self.language]]

    def start(self):
        """Starts it."""
        proxies = [f"127.0.0.1:{proxy.port}" for proxy in self.world.proxies]
        self.program = self.world.start(self.name, [*self.words(), self.host, *proxies])


class Proxy:
    """One of the proxies."""

    def __init__(self, world, name):
        self.world, self.name, self.port = world, name, free_port()
        self.program = None

    def start(self):
        """Starts it; it listens when this returns."""
        servers = [member.address for member in self.world.members]
        argv = self.world.system.argv(self.world.folder, self.name, self.port, servers)
        self.program = self.world.start(self.name, argv)
        until(self.listens, f"{self.name} listens: {self.program.said()}")

    def listens(self):
        """Whether it accepts connections."""
        try:
            socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
        except OSError:
            return False
        return True

    def info(self):
        """What it says about itself."""
        return self.world.system.info(self.world.folder, self.name)


class World:
    """Everything that runs."""

    def __init__(self, system, folder, proxies, isolated):
        self.system, self.folder = system, folder
        # Kills, restarts and partitions: (name, what, begin, end), on the monotonic clock.
        self.log = []
        # What must not happen, in words.
        self.wrong = []
        self.processes = {}
        # A target has one fault at a time, even if the first takes longer than planned.
        self.locks = collections.defaultdict(asyncio.Lock)
        self.far = network.Far() if isolated else None
        self.members = [Member(self, f"member-{number}", far=False) for number in range(3)]
        if self.far:
            self.members.append(Member(self, "member-far", far=True))
        self.proxies = [Proxy(self, f"proxy-{'ab'[number]}") for number in range(proxies)]
        libraries = [Library(self, language) for language in LIBRARIES] if system.bridged else []
        self.libraries = [library for library in libraries if shutil.which(library.words()[0])]
        for library in libraries:
            if library not in self.libraries:
                print(f"skipped: {library.name}: {library.words()[0]} is not there")
        self.disk = folder / "disk"
        self.disk.mkdir()
        if isolated:
            subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK}", "none", self.disk], check=True)

    def start(self, name, argv, far=False):
        """Starts a program, on the far machine or here."""
        # A child of nsenter's would be another process: exec keeps one.
        words = [*(self.far.words() if far else []), *argv]
        self.processes[name] = Process(name, words, self.folder / f"{name}.out", {"RUST_LOG": "info"})
        return self.processes[name]

    def start_all(self):
        """Starts everything, and waits until it serves."""
        for member in self.members:
            member.start_application()
        for proxy in self.proxies:
            proxy.start()
        for member in self.members:
            member.start_agent()
        for library in self.libraries:
            library.start()
        self.await_bridges()

    def bridges(self):
        """How many bridges each proxy has when everything is well."""
        return PLACES * len(self.members) + LIBRARY_BRIDGES * len(self.libraries)

    def await_bridges(self):
        """Waits until all bridges are parked, or in an exchange."""
        if self.system.bridged:
            for proxy in self.proxies:
                until(lambda: self.connected(proxy) == self.bridges(), f"{proxy.name} has {self.bridges()} bridges")

    def connected(self, proxy):
        """How many bridges a proxy has."""
        state = proxy.info()["connections"]
        return state["bridge_parked"] + state["bridge_busy"]

    def await_host(self, host):
        """Waits until every proxy has a bridge for this host, or for a while: a proxy may be gone."""
        with contextlib.suppress(Trouble):
            until(lambda: all(self.serves(proxy, host) for proxy in self.proxies), f"bridges for {host}")

    def serves(self, proxy, host):
        """Whether a proxy has a bridge for this host."""
        try:
            rows = proxy.info()["hosts"]
        except (OSError, ValueError, http.client.HTTPException):
            return False
        return any(host in row["hosts"] and row["parked"] + row["busy"] for row in rows)

    def is_quiet(self):
        """Whether all bridges are parked, and no client waits or is served."""
        states = [proxy.info()["connections"] for proxy in self.proxies if self.system.bridged]
        return all(state["bridge_parked"] == self.bridges() and not state["client_waiting"] + state["client_busy"] for state in states)

    def find(self, target):
        """The member, proxy or library of that name."""
        known = [*self.members, *self.proxies, *self.libraries]
        return next(one for one in known if one.name == target)

    def check_alive(self):
        """Notes programs that have ended although nobody ended them."""
        for name, process in list(self.processes.items()):
            if not process.is_alive():
                self.wrong.append(f"{name} ended by itself with {process.child.returncode}: {process.said()}")
                del self.processes[name]

    def end(self, name, process, kill, what=None):
        """Ends a program, and notes when, and what that was."""
        begin = time.monotonic()
        # It may have ended by itself, which has been noted.
        self.processes.pop(name, None)
        if kill:
            process.kill()
        elif not process.terminate(self.system.ends if name.startswith("proxy-") else signal.SIGTERM):
            self.wrong.append(f"{name} did not end well: {process.said()}")
        self.log.append((name, what or ("killed" if kill else "terminated"), begin, time.monotonic()))

    @contextlib.contextmanager
    def stopped(self, process):
        """A program that is stopped (SIGSTOP)."""
        process.signal(signal.SIGSTOP)
        try:
            yield
        finally:
            process.signal(signal.SIGCONT)

    def fill_disk(self):
        """Leaves no room for the logs."""
        with contextlib.suppress(OSError), (self.disk / "filler").open("wb") as filler:
            while True:
                filler.write(bytes(1 << 20))
                filler.flush()

    def empty_disk(self):
        """Makes room again: the logs are not what is tested."""
        with contextlib.suppress(OSError):
            (self.disk / "filler").unlink()
        for path in self.disk.iterdir():
            os.truncate(path, 0)

    def close(self):
        """Ends everything."""
        for process in self.processes.values():
            with contextlib.suppress(OSError):
                process.signal(signal.SIGCONT)
            process.kill()
        if self.far:
            subprocess.run(["umount", self.disk], check=False)
            self.far.close()


__all__ = ["Trouble", "World"]
