"""The Debian package: installed, used as doc/systemd.md says, upgraded, removed and purged."""

import contextlib
import grp
import os
import pathlib
import re
import shutil
import socket
import stat
import subprocess
import threading
import time

import check
from check import AGENTS, DEADLINE, SETTINGS, UNIT, UNITS, eventually, is_alive, main_pid, run, show

AGENT = "cloudbridge-agent@app.service"
FIRST, SECOND = pathlib.Path("/test/first.deb"), pathlib.Path("/test/second.deb")
SKIPPED = "skipped: there is no package, because dpkg-dev is not installed"
HOST = "app.example.com"
PORT = 8079
SECRETS = SETTINGS.parent / "secrets"
GO = pathlib.Path("/srv/go")

# Answers at once, and /slow when a file is there.
APPLICATION = """import http.server, os, time
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        while self.path == "/slow" and not os.path.exists("/srv/go"):
            time.sleep(0.1)
        self.send_response(200)
        self.send_header("Content-Length", "5")
        self.end_headers()
        self.wfile.write(b"hello")
    def log_message(self, *_):
        pass
http.server.ThreadingHTTPServer(("127.0.0.1", 3000), Handler).serve_forever()
"""

# What doc/systemd.md tells an operator to do.
KEYS = f"""set -e
cloudbridge-key add {SECRETS}
echo "secrets {SECRETS}" >> {SETTINGS}
systemctl reload cloudbridge
cd /root
cloudbridge-key --secrets {SECRETS} --modern --expires 90d {HOST} > app.key
install -m 640 -g cloudbridge-agent app.key {AGENTS}/app.key
echo "service 127.0.0.1:3000 host={HOST} key-file={AGENTS}/app.key proxy=127.0.0.1" > {AGENTS}/app.conf
systemctl enable --now cloudbridge-agent@app
"""

begun = 0


def ask(path="/", timeout=DEADLINE):
    """The answer to a request of its own connection."""
    with socket.create_connection(("127.0.0.1", PORT), timeout=timeout) as client:
        client.sendall(f"GET {path} HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n".encode())
        answer = b""
        while more := client.recv(65536):
            answer += more
        return answer


def is_good(answer):
    return answer.startswith(b"HTTP/1.1 200 ") and answer.endswith(b"\r\n\r\nhello")


class Requests:
    """Asks all the time, and keeps what is not an answer of the application."""

    def __init__(self):
        self.over, self.served, self.failed = threading.Event(), 0, []
        self.threads = [threading.Thread(target=self.work, daemon=True) for _ in range(3)]

    def work(self):
        while not self.over.is_set():
            try:
                answer = ask()
            except OSError as error:
                answer = str(error).encode()
            if is_good(answer):
                self.served += 1
            else:
                self.failed.append(answer[:300])
                time.sleep(0.05)

    def __enter__(self):
        [thread.start() for thread in self.threads]
        self.go_on()
        return self

    def __exit__(self, *_):
        self.over.set()
        [thread.join(DEADLINE) for thread in self.threads]
        assert not self.failed, (len(self.failed), self.failed[:3])

    def go_on(self):
        before = self.served
        eventually("more requests are served", lambda: self.served > before + 20)


def clean():
    """Nothing of what came before is left."""
    run("systemctl", "stop", "cloudbridge.socket", UNIT, check=False)
    for left in [*UNITS.glob("cloudbridge*"), *pathlib.Path("/usr/local/bin").glob("cloudbridge*")]:
        shutil.rmtree(left) if left.is_dir() else left.unlink()
    for left in (SETTINGS.parent, AGENTS):
        shutil.rmtree(left, ignore_errors=True)
    for file in ("/etc/passwd", "/etc/group"):
        path = pathlib.Path(file)
        lines = path.read_text().splitlines(keepends=True)
        path.write_text("".join(line for line in lines if not line.startswith("cloudbridge")))
    run("systemctl", "daemon-reload")
    run("systemctl", "reset-failed")


def is_ready():
    """The folders belong to the users of the units, and nothing runs."""
    for folder, group in ((SETTINGS.parent, "cloudbridge"), (AGENTS, "cloudbridge-agent")):
        data = folder.stat()
        found = stat.S_IMODE(data.st_mode), data.st_uid, grp.getgrgid(data.st_gid).gr_name
        assert found == (0o2750, 0, group), (folder, found)
    assert (show("ActiveState"), show("UnitFileState")) == ("inactive", "disabled")


def source_is_installed():
    """`make install` makes users and folders, and what it installs serves; `make uninstall` takes it away."""
    programs = pathlib.Path("/test/bin")
    programs.mkdir()
    for program in pathlib.Path("/usr/local/bin").glob("cloudbridge*"):
        shutil.move(program, programs / program.name)
    clean()
    # What make runs; there is no make here.
    make = ("env", f"BIN={programs}", "/test/source/packaging/install")
    run(*make, "install")
    is_ready()
    run("systemctl", "enable", "--now", "cloudbridge")
    assert "FREE" in run("/usr/local/bin/cloudbridge", "ctl", "hosts").stdout
    done = run(*make, "uninstall", check=False)
    assert done.returncode != 0 and "systemctl disable --now cloudbridge.service" in done.stderr, done
    run("systemctl", "disable", "--now", "cloudbridge")
    run(*make, "uninstall")
    assert SETTINGS.exists() and not pathlib.Path("/usr/local/bin/cloudbridge").exists()
    assert not pathlib.Path("/usr/local/lib/systemd/system/cloudbridge.service").exists()


def package_is_installed():
    """dpkg makes users and folders, and starts nothing."""
    global begun
    if not FIRST.exists():
        return SKIPPED
    clean()
    begun = time.time()
    run("dpkg", "--install", str(FIRST))
    is_ready()
    complaints = run("systemd-analyze", "verify", UNIT, "cloudbridge.socket", AGENT, "--man=no").stderr
    assert "cloudbridge" not in complaints, complaints
    exposed = {unit: exposure(unit) for unit in (UNIT, AGENT)}
    assert max(exposed.values()) < 2.0, exposed
    return ", ".join(f"{unit} is exposed by {level}" for unit, level in exposed.items())


def exposure(unit):
    """How much a program of this unit may do, from 0 to 10."""
    found = run("systemd-analyze", "security", "--no-pager", unit).stdout
    return float(re.search(r"exposure level for \S+: ([0-9.]+)", found).group(1))


def version():
    """The package's that is installed."""
    return run("dpkg-query", "--show", "--showformat=${Status} ${Version}", "cloudbridge").stdout


def errors(since):
    return run("journalctl", "--quiet", "--no-pager", "-p", "err", f"--since=@{int(since)}").stdout


def package_serves():
    """systemctl start serves; with keys made as the manual says, a request goes through agent and proxy."""
    if not FIRST.exists():
        return SKIPPED
    run("systemctl", "enable", "--now", "cloudbridge")
    assert "FREE" in run("cloudbridge", "ctl", "hosts").stdout
    pathlib.Path("/srv/app.py").write_text(APPLICATION)
    (UNITS / "app.service").write_text("[Service]\nExecStart=/usr/bin/python3 /srv/app.py\n")
    run("systemctl", "daemon-reload")
    run("systemctl", "start", "app")
    run("bash", "-c", KEYS)
    data = SECRETS.stat()
    assert (stat.S_IMODE(data.st_mode), grp.getgrgid(data.st_gid).gr_name) == (0o640, "cloudbridge")
    eventually("the agent's bridges", lambda: HOST in run("cloudbridge", "ctl", "hosts").stdout)
    assert is_good(ask())
    # Another secret, without a word about owners.
    run("cloudbridge-key", "add", str(SECRETS))
    run("systemctl", "reload", "cloudbridge")
    assert is_good(ask())
    for unit in (UNIT, AGENT):
        user = run("ps", "-o", "user:32=", "-p", show("MainPID", unit)).stdout.strip()
        assert user == unit.split("@")[0].removesuffix(".service"), user
    return run("cloudbridge", "--version").stdout.strip()


def package_restarts():
    """Restarts and reloads of proxy, agent and application lose no request."""
    if not FIRST.exists():
        return SKIPPED
    with Requests() as requests:
        for command in (("restart", UNIT), ("reload", UNIT), ("reload", AGENT), ("restart", AGENT), ("restart", UNIT)):
            run("systemctl", *command)
            requests.go_on()
    # The agent is the application's by its name.
    before = show("MainPID", AGENT)
    run("systemctl", "restart", "app")
    assert show("MainPID", AGENT) != before
    eventually("requests are served", lambda: is_good(ask()))
    return f"{requests.served} requests"


def package_is_upgraded():
    """A new version of the package replaces both programs, and no request fails."""
    if not FIRST.exists():
        return SKIPPED
    before = [show("MainPID", unit) for unit in (UNIT, AGENT)]
    with Requests() as requests:
        done = run("dpkg", "--install", str(SECOND))
        assert "still runs" not in done.stderr, done.stderr
        assert version().startswith("install ok installed ") and version().endswith("+next"), version()
        for unit, process in zip((UNIT, AGENT), before):
            now = show("MainPID", unit)
            assert now not in ("0", process), f"{unit} runs the version before"
            # That of the version before is gone.
            program = f"/usr/bin/{unit.split('@')[0].removesuffix('.service')}"
            assert os.readlink(f"/proc/{now}/exe") == program, os.readlink(f"/proc/{now}/exe")
            assert (show("ActiveState", unit), show("NRestarts", unit)) == ("active", "0")
        requests.go_on()
    eventually("the programs before have ended", lambda: not any(is_alive(process) for process in before))
    assert f"secrets {SECRETS}" in SETTINGS.read_text(), "the settings have been replaced"
    return f"{requests.served} requests"


class Slow:
    """A request that is with the application, which answers when it is told to."""

    def __init__(self):
        GO.unlink(missing_ok=True)
        self.answer = None
        self.thread = threading.Thread(target=self.work, daemon=True)
        self.thread.start()
        eventually("it is in progress", lambda: self.busy() > 0)

    def busy(self):
        lines = run("cloudbridge", "ctl", "hosts").stdout.splitlines()
        return next((int(line.split()[2]) for line in lines if line.startswith(HOST)), 0)

    def work(self):
        try:
            self.answer = ask("/slow")
        except OSError as error:
            self.answer = str(error).encode()

    def is_answered(self):
        assert self.answer is None, self.answer
        GO.touch()
        self.thread.join(DEADLINE)
        assert self.answer and is_good(self.answer), self.answer


def package_stops_old_programs():
    """A stop waits for what old programs of an upgrade still have."""
    if not FIRST.exists():
        return SKIPPED
    slow, old = Slow(), main_pid()
    idle = socket.create_connection(("127.0.0.1", PORT))
    new = check.upgrade(old)
    eventually("the new one serves", lambda: "serving" in show("StatusText"))
    run("systemctl", "stop", "--no-block", UNIT)
    eventually("the new one ends", lambda: not is_alive(new))
    # systemd has told the old one, too.
    eventually("the old one drains", lambda: "shutting down" in journal_of(old))
    assert is_alive(old)
    slow.is_answered()
    idle.close()
    eventually("it has stopped", lambda: show("ActiveState") == "inactive")
    assert show("Result") == "success" and not is_alive(old)
    run("systemctl", "start", UNIT)
    eventually("requests are served", lambda: is_good(ask()))


def journal_of(process):
    return run("journalctl", "--quiet", "--no-pager", "-o", "cat", f"_PID={process}").stdout


def package_has_no_errors():
    """The journal has no error of all this."""
    if not FIRST.exists():
        return SKIPPED
    found = errors(begun)
    assert not found, found


def package_checks_before_it_reloads():
    """Bad settings make a reload fail, and everything goes on."""
    if not FIRST.exists():
        return SKIPPED
    for unit, file in ((UNIT, SETTINGS), (AGENT, AGENTS / "app.conf")):
        good, process = file.read_text(), show("MainPID", unit)
        file.write_text(good + "no-such-line 1\n")
        done = run("systemctl", "reload", unit, check=False)
        file.write_text(good)
        assert done.returncode != 0, f"{unit} takes bad settings"
        assert (show("ActiveState", unit), show("MainPID", unit)) == ("active", process)
    assert is_good(ask())


def package_is_removed():
    """Removed, it has stopped and left its settings, with which it serves when it is installed again."""
    if not FIRST.exists():
        return SKIPPED
    since = after_the_errors_before()
    run("dpkg", "--remove", "cloudbridge")
    assert not subprocess.run(["pgrep", "cloudbridge"], capture_output=True).stdout
    assert SETTINGS.exists() and not pathlib.Path("/usr/bin/cloudbridge").exists()
    refuses()
    run("dpkg", "--install", str(FIRST))
    assert version().startswith("install ok installed ") and not version().endswith("+next"), version()
    # What the operator has enabled still is, and nothing has been started.
    for unit in (UNIT, AGENT):
        assert (show("ActiveState", unit), show("UnitFileState", unit)) == ("inactive", "enabled"), unit
    run("systemctl", "start", UNIT, AGENT)
    eventually("requests are served", lambda: is_good(ask()))
    assert not errors(since), errors(since)


def package_is_purged():
    """Purged while it serves, it has stopped and left only what the operator has made."""
    if not FIRST.exists():
        return SKIPPED
    since = after_the_errors_before()
    run("dpkg", "--purge", "cloudbridge")
    assert not subprocess.run(["pgrep", "cloudbridge"], capture_output=True).stdout
    refuses()
    assert not SETTINGS.exists() and SECRETS.exists()
    for gone in ("/etc/logrotate.d/cloudbridge", "/var/log/cloudbridge", "/run/cloudbridge", "/usr/bin/cloudbridge"):
        assert not pathlib.Path(gone).exists(), gone
    left = [str(path) for path in UNITS.rglob("*cloudbridge*")]
    assert not left, left
    assert [show("LoadState", unit) for unit in (UNIT, AGENT)] == ["not-found"] * 2
    assert run("dpkg-query", "--show", "cloudbridge", check=False).returncode != 0
    assert not errors(since), errors(since)


def after_the_errors_before():
    """A time from which on the journal has errors of what comes next only. It counts in seconds."""
    time.sleep(1)
    return time.time()


def refuses():
    with contextlib.suppress(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", PORT))
        raise AssertionError("somebody listens")


CHECKS = [
    source_is_installed,
    package_is_installed,
    package_serves,
    package_restarts,
    package_is_upgraded,
    package_stops_old_programs,
    package_has_no_errors,
    package_checks_before_it_reloads,
    package_is_removed,
    package_is_purged,
]
