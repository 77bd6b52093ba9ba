"""The proxies that are replaced under load: how each is started, and how a new program takes over from it."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

sys.dont_write_bytecode = True
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "soak"))

from process import Process, until

# Requests that the application takes at once.
PLACES = 8


def is_alive(pid):
    """Whether the process runs. A zombie has ended."""
    try:
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


class System:
    """A proxy on `port` in front of an application at `server`, with its files in `folder`."""

    program = ""

    def __init__(self, tools, folder, port, server):
        self.tools, self.folder, self.port, self.server = tools, folder, port, server
        self.pidfile = folder / "pid"
        self.log = folder / "proxy.log"

    @classmethod
    def missing(cls, _tools):
        """Why it cannot run here, or None."""
        return None if shutil.which(cls.program) else f"{cls.program} is not installed"

    def pid(self):
        """The process that serves, or None while that is not known."""
        try:
            return int(self.pidfile.read_text())
        except (FileNotFoundError, ValueError):
            return None

    def run(self, *words):
        """Runs a program that ends at once, or goes into the background."""
        with self.log.open("ab") as log:
            subprocess.run([str(word) for word in words], stdin=subprocess.DEVNULL, stdout=log, stderr=log, check=True)

    def replace(self, workers):
        """A new program with so many workers takes over. Returns when the old one has ended."""
        old = self.pid()
        self.configure(workers)
        self.take_over(old)
        until(lambda: self.pid() not in (None, old), "another process serves")
        until(lambda: not is_alive(old), "the old process ends")

    def stop(self):
        """Ends what runs."""
        pid = self.pid()
        if pid and is_alive(pid):
            os.kill(pid, signal.SIGTERM)
            until(lambda: not is_alive(pid), "it ends")


class Cloudbridge(System):
    """This proxy, with an agent beside the application."""

    agent = None

    @classmethod
    def missing(cls, tools):
        built = all((tools / name).exists() for name in ("cloudbridge", "cloudbridge-agent"))
        return None if built else f"cloudbridge is not built in {tools}"

    def configure(self, workers, more=""):
        """Writes the settings."""
        (self.folder / "cloudbridge.conf").write_text(
            f"listen 127.0.0.1:{self.port}\nlisten unix:{self.folder}/admin.sock admin\nworkers {workers}\n"
            f"pidfile {self.pidfile}\nlog-file {self.log}\n{more}"
        )

    def start(self, workers, more=""):
        """Starts it; it serves when this returns."""
        self.configure(workers, more)
        words = [self.tools / "cloudbridge", "-c", self.folder / "cloudbridge.conf"]
        self.first = Process("cloudbridge", words, self.folder / "cloudbridge.out")
        until(self.pid, "the process's number")

    def start_agent(self):
        """Starts the agent."""
        words = [self.tools / "cloudbridge-agent", "--to", self.server, "--host", "soak.test", "-n", PLACES]
        self.agent = Process("agent", [*words, f"127.0.0.1:{self.port}"], self.folder / "agent.log", {"RUST_LOG": "info"})

    def take_over(self, old):
        os.kill(old, signal.SIGUSR2)

    def stop(self):
        super().stop()
        if self.agent:
            self.agent.kill()
        self.first.kill()


class Haproxy(System):
    """HAProxy; the new process is told to end the old one (-sf)."""

    program = "haproxy"

    def configure(self, workers):
        (self.folder / "haproxy.cfg").write_text(
            f"global\n    nbthread {workers}\n    stats socket {self.folder}/sock level admin expose-fd listeners\n"
            "defaults\n    mode http\n    timeout connect 5s\n    timeout client 60s\n    timeout server 60s\n"
            f"frontend clients\n    bind 127.0.0.1:{self.port}\n    default_backend servers\n"
            f"backend servers\n    server one {self.server} maxconn {PLACES}\n"
        )

    def words(self):
        """The command line."""
        return ["haproxy", "-D", "-f", self.folder / "haproxy.cfg", "-p", self.pidfile]

    def start(self, workers):
        self.configure(workers)
        self.run(*self.words())
        until(self.pid, "the process's number")

    def start_agent(self):
        """It dials the application itself."""

    def take_over(self, old):
        self.run(*self.words(), "-sf", old)


class HaproxyWithSockets(Haproxy):
    """HAProxy; the new process gets the listening sockets of the old one (-x)."""

    def take_over(self, old):
        self.run(*self.words(), "-sf", old, "-x", self.folder / "sock")


class Nginx(System):
    """nginx, as its documentation has it: USR2 starts a new master, QUIT ends the old one in good order."""

    program = "nginx"

    def configure(self, workers):
        own = self.folder
        paths = "".join(f"    {kind}_temp_path {own}/{kind};\n" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
        (own / "nginx.conf").write_text(f"""\
user root;
pid {self.pidfile};
error_log {self.log} crit;
worker_processes {workers};
events {{ worker_connections 1024; }}
http {{
{paths}    access_log off;
    keepalive_requests 1000000;
    upstream servers {{ server {self.server}; keepalive {PLACES}; }}
    server {{
        listen 127.0.0.1:{self.port};
        location / {{
            proxy_http_version 1.1;
            proxy_set_header Host $host;
            proxy_set_header Connection "";
            proxy_pass http://servers;
        }}
    }}
}}
""")

    def start(self, workers):
        self.configure(workers)
        # It starts itself anew by the name that it was started by.
        self.run(shutil.which("nginx"), "-c", self.folder / "nginx.conf", "-e", self.log, "-p", self.folder)
        until(self.pid, "the process's number")

    def start_agent(self):
        """It dials the application itself."""

    def take_over(self, old):
        os.kill(old, signal.SIGUSR2)
        until(lambda: self.pid() not in (None, old), "the new master's number")
        os.kill(old, signal.SIGQUIT)


SYSTEMS = {"cloudbridge": Cloudbridge, "haproxy -sf": Haproxy, "haproxy -sf -x": HaproxyWithSockets, "nginx USR2": Nginx}
