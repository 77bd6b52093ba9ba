#!/usr/bin/env python3
"""Puts the shipped units through what an operator does, under the systemd of this machine (tests/guest/run).

Prints a line for each thing that holds, and "guest: all is well" at the end. Whatever does not hold ends it."""

import contextlib
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback

UNIT = "cloudbridge.service"
UNITS = pathlib.Path("/etc/systemd/system")
SETTINGS = pathlib.Path("/etc/cloudbridge/cloudbridge.conf")
AGENTS = pathlib.Path("/etc/cloudbridge-agent")
# The machine is emulated, and slow.
DEADLINE = 60
# How long a client may take to send its request when the proxy drains, less what this machine loses elsewhere.
LAST_CHANCE = 0.4

PLAIN = """workers 2
listen *:80
listen unix:/run/cloudbridge/admin.sock admin
unknown-host 404
upgrade-timeout 1m
"""
# What systemd keeps for PLAIN: two workers' sockets, and the admin listener's.
LISTENERS = 3


def say(text):
    print(f"guest: {text}", flush=True)


def run(*words, check=True):
    done = subprocess.run(words, capture_output=True, text=True)
    if check and done.returncode != 0:
        raise AssertionError(f"{' '.join(words)}: {done.stdout}{done.stderr}")
    return done


def show(name, unit=UNIT):
    return run("systemctl", "show", "-P", name, unit).stdout.strip()


def main_pid():
    return int(show("MainPID"))


def eventually(what, holds):
    until = time.monotonic() + DEADLINE
    while True:
        found = holds()
        if found:
            return found
        assert time.monotonic() < until, f"not after {DEADLINE} seconds: {what}"
        time.sleep(0.05)


def is_alive(process):
    with contextlib.suppress(FileNotFoundError):
        stat = pathlib.Path(f"/proc/{process}/stat").read_text()
        return ") Z " not in stat
    return False


class Peer:
    """A connection to the proxy."""

    def __init__(self, port=80):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=DEADLINE)
        self.bytes = b""

    def send(self, text):
        self.socket.sendall(text.encode())

    def until(self, mark):
        while mark not in self.bytes:
            more = self.socket.recv(65536)
            assert more, f"the connection ended after {self.bytes!r}"
            self.bytes += more
        head, _, self.bytes = self.bytes.partition(mark)
        return head.decode()

    def exactly(self, text):
        while len(self.bytes) < len(text):
            more = self.socket.recv(65536)
            assert more, f"the connection ended after {self.bytes!r}"
            self.bytes += more
        found, self.bytes = self.bytes[: len(text)].decode(), self.bytes[len(text) :]
        assert found == text, found


def park(host):
    """A parked bridge."""
    bridge = Peer()
    bridge.send(f"BRIDGE / HTTP/1.1\r\nHost: {host}\r\n\r\n")
    bridge.until(b" 100 Continue\r\n\r\n")
    return bridge


def take(bridge, fresh):
    """The head of the bridge's next request."""
    if not fresh:
        return bridge.until(b"\r\n\r\n")
    head = bridge.until(b"\r\n\r\n")
    while "100 Continue" in head:
        head = bridge.until(b"\r\n\r\n")
    assert " 101 " in head, head
    bridge.send("HTTP/1.1 100 Continue\r\n\r\n")
    return bridge.until(b"\r\n\r\n")


class Hammer:
    """Connects all the time, and asks each connection for something that the proxy answers itself."""

    def __init__(self, port=80):
        self.port, self.over = port, threading.Event()
        self.served = self.late = 0
        self.refused, self.cut = [], []
        self.threads = [threading.Thread(target=self.work, daemon=True) for _ in range(4)]

    def work(self):
        while not self.over.is_set():
            begun = time.monotonic()
            try:
                peer = socket.create_connection(("127.0.0.1", self.port), timeout=DEADLINE)
            except OSError as error:
                self.refused.append(str(error))
                time.sleep(0.01)
                continue
            with peer:
                took = time.monotonic() - begun
                try:
                    peer.sendall(b"GET / HTTP/1.1\r\nHost: nobody.test\r\nConnection: close\r\n\r\n")
                    took = time.monotonic() - begun
                    answer = peer.recv(65536)
                except OSError as error:
                    answer = str(error).encode()
            if answer.startswith(b"HTTP/1.1 404 "):
                self.served += 1
            elif took > LAST_CHANCE:
                self.late += 1
            else:
                # A process that is killed takes along what it has accepted.
                self.cut.append(answer[:200])

    def __enter__(self):
        [thread.start() for thread in self.threads]
        eventually("the first connections", lambda: self.served > 20)
        return self

    def __exit__(self, *_):
        self.over.set()
        [thread.join(DEADLINE) for thread in self.threads]
        assert not any(thread.is_alive() for thread in self.threads), "a connection hears nothing"

    def go_on(self):
        """Waits for some more."""
        before = self.served
        eventually("more connections are served", lambda: self.served > before + 50)


def verify_units():
    """systemd finds nothing wrong with them."""
    for name in ("cloudbridge.service", "cloudbridge.socket", "cloudbridge-agent@.service"):
        shutil.copy(f"/test/{name}", UNITS / name)
    run("systemctl", "daemon-reload")
    found = run("systemd-analyze", "verify", "--man=no", UNIT, "cloudbridge.socket", "cloudbridge-agent@a.service")
    complaints = [line for line in found.stderr.splitlines() if "cloudbridge" in line]
    assert not complaints, complaints


def start():
    """`systemctl start` returns when it listens, and the status says what it does."""
    SETTINGS.parent.mkdir()
    SETTINGS.write_text(PLAIN)
    run("systemctl", "start", UNIT)
    Peer()
    assert show("ActiveState") == "active" and main_pid() > 1
    eventually("a status", lambda: show("StatusText").startswith("serving 0 hosts"))
    eventually("sockets are kept", lambda: int(show("NFileDescriptorStore")) == LISTENERS)


def reload():
    """`systemctl reload` reads the settings again, and fails if they are bad."""
    process = main_pid()
    SETTINGS.write_text(PLAIN + "listen 127.0.0.1:81\n")
    run("systemctl", "reload", UNIT)
    eventually("the new listener", lambda: int(show("NFileDescriptorStore")) == LISTENERS + 2)
    Peer(81)
    SETTINGS.write_text(PLAIN + "no-such-setting 1\n")
    done = run("systemctl", "reload", UNIT, check=False)
    assert done.returncode != 0, "bad settings are taken"
    Peer(81)
    SETTINGS.write_text(PLAIN)
    run("systemctl", "reload", UNIT)
    eventually("it is closed", lambda: int(show("NFileDescriptorStore")) == LISTENERS)
    with contextlib.suppress(ConnectionRefusedError):
        Peer(81)
        raise AssertionError("a listener that is gone takes connections")
    assert (show("ActiveState"), main_pid()) == ("active", process)


def tunnel():
    """Both ends of a tunnel through the proxy."""
    bridge, client = park("tunnel.test"), Peer()
    upgrade = "Connection: upgrade\r\nUpgrade: echo\r\n\r\n"
    client.send(f"GET / HTTP/1.1\r\nHost: tunnel.test\r\n{upgrade}")
    take(bridge, True)
    bridge.send(f"HTTP/1.1 101 Switching Protocols\r\n{upgrade}")
    client.until(b"\r\n\r\n")
    return client, bridge


def upgrade(process):
    run("systemctl", "kill", "--kill-whom=main", "--signal=USR2", UNIT)
    return eventually("another main process", lambda: main_pid() not in (0, process) and main_pid())


def upgrades():
    """USR2: a client, a bridge and a tunnel go on, and the unit follows the new process."""
    bridge, client, (near, far) = park("a.test"), Peer(), tunnel()
    client.send("GET /1 HTTP/1.1\r\nHost: a.test\r\n\r\n")
    assert take(bridge, True).startswith("GET /1 ")
    bridge.send("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\none")
    client.until(b"\r\n\r\n")
    client.exactly("one")
    old = main_pid()
    with Hammer() as hammer:
        new = upgrade(old)
        hammer.go_on()
    assert not hammer.refused and not hammer.cut, (hammer.refused[:3], hammer.cut[:3])
    client.send("GET /2 HTTP/1.1\r\nHost: a.test\r\n\r\n")
    assert take(bridge, False).startswith("GET /2 ")
    bridge.send("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\ntwo")
    client.until(b"\r\n\r\n")
    client.exactly("two")
    near.send("to the far end")
    far.exactly("to the far end")
    assert show("ActiveState") == "active", show("ActiveState")
    near.socket.close(), far.socket.close()
    eventually("the old process ends", lambda: not is_alive(old))
    assert (show("ActiveState"), main_pid(), show("NRestarts")) == ("active", new, "0")


def dying_successor():
    """A new process that is killed leaves the unit to the old one, as long as that has something in progress."""
    bridge, client = park("busy.test"), Peer()
    client.send("GET /busy HTTP/1.1\r\nHost: busy.test\r\n\r\n")
    take(bridge, True)
    old = main_pid()
    new = upgrade(old)
    eventually("the new one serves", lambda: "serving" in show("StatusText"))
    os.kill(new, signal.SIGKILL)
    eventually("the old process is the main one again", lambda: main_pid() == old)
    assert show("ActiveState") == "active", show("ActiveState")
    with Hammer() as hammer:
        hammer.go_on()
    assert not hammer.refused, hammer.refused[:3]
    bridge.send("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\none")
    client.until(b"\r\n\r\n")
    client.exactly("one")


def restarts():
    """`systemctl restart` refuses nobody and cuts nobody off."""
    with Hammer() as hammer:
        for _ in range(3):
            before = main_pid()
            run("systemctl", "restart", UNIT)
            assert main_pid() != before
            hammer.go_on()
    assert not hammer.refused and not hammer.cut, (hammer.refused[:3], hammer.cut[:3])
    return f"{hammer.served} connections"


def kills(port=80):
    """After `kill -9` the next process takes the backlog up."""
    with Hammer(port) as hammer:
        for _ in range(3):
            before = main_pid()
            os.kill(before, signal.SIGKILL)
            eventually("another process", lambda: main_pid() not in (0, before) and show("SubState") == "running")
            hammer.go_on()
    assert not hammer.refused, hammer.refused[:3]
    return f"{hammer.served} connections, {len(hammer.cut)} that the killed ones had accepted"


def answer(client, bridge, path, fresh):
    """A request of the client, which this bridge serves."""
    client.send(f"GET {path} HTTP/1.1\r\nHost: kept.test\r\n\r\n")
    assert take(bridge, fresh).startswith(f"GET {path} ")
    bridge.send("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\none")
    client.until(b"\r\n\r\n")
    client.exactly("one")


def is_over(peer):
    """The other side has closed."""
    peer.socket.settimeout(DEADLINE)
    with contextlib.suppress(ConnectionResetError):
        while peer.socket.recv(65536):
            pass


def kept_bridges():
    """After `kill -9` the next process goes on with the bridges that were idle, and ends the others."""
    # The process before has taken along what it had kept of bridges.
    run("systemctl", "restart", UNIT)
    eventually("only listeners are kept", lambda: int(show("NFileDescriptorStore")) == LISTENERS)
    # The table comes with the first bridge, and stays until a process ends in order.
    count = lambda: int(show("NFileDescriptorStore")) - LISTENERS - 1
    reused, ends = park("kept.test"), tunnel()
    answer(Peer(), reused, "/first", True)
    eventually("two bridges are kept", lambda: count() == 2)
    for at in range(3):
        before = main_pid()
        os.kill(before, signal.SIGKILL)
        eventually("another process", lambda: main_pid() not in (0, before) and show("SubState") == "running")
        answer(Peer(), reused, f"/{at}", False)
    [is_over(end) for end in ends]
    eventually("the tunnel's bridge is forgotten", lambda: count() == 1)
    upgrade(main_pid())
    answer(Peer(), reused, "/upgraded", False)
    assert count() == 1
    before = main_pid()
    os.kill(before, signal.SIGKILL)
    eventually("another process", lambda: main_pid() not in (0, before) and show("SubState") == "running")
    answer(Peer(), reused, "/killed", False)
    # Its own end is seen by systemd, too.
    reused.socket.close()
    eventually("no bridge is kept", lambda: count() == 0)
    crowd = [park("kept.test") for _ in range(200)]
    eventually("all are kept", lambda: count() == len(crowd))
    run("systemctl", "restart", UNIT)
    [is_over(bridge) for bridge in crowd]
    eventually("only listeners are kept", lambda: int(show("NFileDescriptorStore")) == LISTENERS)


def other_workers():
    """A restart with fewer workers, and then more, serves every socket that was kept."""
    for workers in (1, 4, 2):
        SETTINGS.write_text(PLAIN.replace("workers 2", f"workers {workers}"))
        with Hammer() as hammer:
            run("systemctl", "restart", UNIT)
            hammer.go_on()
        assert not hammer.refused and not hammer.cut, (hammer.refused[:3], hammer.cut[:3])


@contextlib.contextmanager
def changed(*lines):
    """The unit with these settings."""
    drop_in = UNITS / f"{UNIT}.d"
    drop_in.mkdir()
    (drop_in / "changed.conf").write_text("\n".join(("[Service]", *lines, "")))
    run("systemctl", "daemon-reload")
    run("systemctl", "restart", UNIT)
    yield
    shutil.rmtree(drop_in)
    run("systemctl", "daemon-reload")


def main_speaks_alone():
    """With NotifyAccess=main upgrades work, too."""
    with changed("NotifyAccess=main"):
        old = main_pid()
        new = upgrade(old)
        eventually("the old process ends", lambda: not is_alive(old))
        assert (show("ActiveState"), main_pid()) == ("active", new)
        run("systemctl", "reload", UNIT)


def reload_is_awaited():
    """With Type=notify-reload `systemctl reload` returns when the new settings are in force."""
    version = int(run("systemctl", "--version").stdout.split()[1])
    if version < 253:
        return "skipped: this systemd has no such type"
    with changed("Type=notify-reload", "ExecReload="):
        for number in range(5):
            SETTINGS.write_text(PLAIN + f"listen 127.0.0.1:{8100 + number}\n")
            run("systemctl", "reload", UNIT)
            Peer(8100 + number)
        SETTINGS.write_text(PLAIN)


def watchdog():
    """A process that hangs is ended and started again."""
    with changed("WatchdogSec=4s", "TimeoutAbortSec=2s"):
        hang()


def hang():
    process, restarts = main_pid(), int(show("NRestarts"))
    time.sleep(10)
    assert main_pid() == process, "it has been restarted though it is well"
    new = upgrade(process)
    eventually("the old process ends", lambda: not is_alive(process))
    time.sleep(10)
    assert main_pid() == new, "the new program does not tell the watchdog"
    os.kill(new, signal.SIGSTOP)
    eventually("a restart", lambda: int(show("NRestarts")) > restarts and main_pid() not in (0, new))


def stop():
    """`systemctl stop` ends it well, and nothing stays behind."""
    run("systemctl", "stop", UNIT)
    assert (show("ActiveState"), show("Result"), show("NFileDescriptorStore")) == ("inactive", "success", "0")
    with contextlib.suppress(ConnectionRefusedError):
        Peer()
        raise AssertionError("somebody listens")


def activation():
    """Socket activation: the first client starts the proxy; nobody is refused, whatever happens to it."""
    SETTINGS.write_text(PLAIN.replace("listen *:80\n", "listen systemd:web\n"))
    run("systemctl", "start", "cloudbridge.socket")
    assert show("ActiveState") == "inactive"
    first = Peer()
    first.send("GET / HTTP/1.1\r\nHost: nobody.test\r\n\r\n")
    assert first.until(b"\r\n\r\n").startswith("HTTP/1.1 404 ")
    assert show("ActiveState") == "active"
    restarts(), kills()
    process = main_pid()
    upgrade(process)
    restarts()
    with Hammer() as hammer:
        run("systemctl", "stop", UNIT)
        hammer.go_on()
    assert not hammer.refused and not hammer.cut, (hammer.refused[:3], hammer.cut[:3])
    run("systemctl", "stop", "cloudbridge.socket", UNIT)


def agent():
    """The agent tells when it is there, and what it does; `systemctl reload` reads its file again, unless it is bad."""
    SETTINGS.write_text(PLAIN)
    run("systemctl", "start", UNIT)
    agent, file = "cloudbridge-agent@c", AGENTS / "c.conf"
    parked = lambda count: show("StatusText", agent).startswith(f"{count} bridges parked")
    AGENTS.mkdir()
    line = "service 127.0.0.1:80 host=c.test n={} proxy=127.0.0.1:80\n"
    file.write_text(line.format(3))
    run("systemctl", "start", agent)
    eventually("its status", lambda: parked(3))
    process = show("MainPID", agent)
    file.write_text(line.format(5))
    run("systemctl", "reload", agent)
    eventually("more bridges", lambda: parked(5))
    file.write_text(line.format(2) + "no-such-line 1\n")
    assert run("systemctl", "reload", agent, check=False).returncode != 0, "a bad file is taken"
    assert (show("ActiveState", agent), show("MainPID", agent), parked(5)) == ("active", process, True)
    run("systemctl", "stop", agent)
    assert show("Result", agent) == "success"
    run("systemctl", "stop", UNIT)


CHECKS = [verify_units, start, reload, upgrades, dying_successor, restarts, kills, kept_bridges, other_workers, main_speaks_alone, reload_is_awaited, watchdog, stop, activation, agent]


def main():
    with open("/etc/passwd", "a") as file:
        file.write("cloudbridge:x:990:990::/nonexistent:/usr/sbin/nologin\n")
        file.write("cloudbridge-agent:x:989:989::/nonexistent:/usr/sbin/nologin\n")
    with open("/etc/group", "a") as file:
        file.write("cloudbridge:x:990:\ncloudbridge-agent:x:989:\n")
    say(run("systemctl", "--version").stdout.splitlines()[0])
    import package  # It uses this module.

    only = pathlib.Path("/test/only").read_text().strip().split(",")
    for check in CHECKS + package.CHECKS:
        if only != [""] and check.__name__ not in only:
            continue
        try:
            begun = time.monotonic()
            more = check()
        except BaseException:
            trace = traceback.format_exc()
            print(run("journalctl", "--no-pager", "-n", "40", "-o", "cat", check=False).stdout)
            print(run("systemctl", "status", "--no-pager", "-l", UNIT, check=False).stdout, flush=True)
            say(f"{check.__name__} FAILED: {trace}")
            sys.exit(1)
        say(f"{check.__name__}: {check.__doc__}{f' ({more})' if more else ''} [{time.monotonic() - begun:.0f} s]")
    say("all is well")


if __name__ == "__main__":
    main()
