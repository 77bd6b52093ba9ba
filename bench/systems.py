"""The measured systems: how each is configured and started, with its backends."""

import copy
import http.client
import shutil
import socket
import ssl
import subprocess
from pathlib import Path

from machine import Process, Together, Trouble, free_port, output_of, until

# The host of all requests. Bridges register it and Sōzu routes by it; the other systems ignore it.
HOST = "app.bench"
# The files that are asked for, with their sizes.
FILES = {"1k": 1 << 10, "1m": 1 << 20}
# Descriptors that a system needs besides its connections.
SPARE = 500


class System:
    """A system under test."""

    # Backends dial this system as bridges, and do not listen.
    bridged = False
    # What `front` starts runs between the clients and this system, on the load's cores, as part of the load.
    behind = False
    # Between the proxies and the backends, which listen, there is an agent with a service for each backend.
    agents = False
    # How many of it there are.
    size = 1
    # Clients' connections begin with a PROXY header.
    announced = False
    # Called with a running Env; reads its metrics.
    metrics = None

    def __init__(self, name, title):
        self.name = name
        self.title = title

    def missing(self, tools):
        """Why it cannot run here and how to fix that, or None."""
        raise NotImplementedError

    def version(self, tools):
        """Its own version string."""
        raise NotImplementedError

    def count(self, plan):
        """How many of it run in a scenario."""
        return self.size

    def clients(self, env):
        """Where our own loads connect."""
        return [f"127.0.0.1:{port}" for port in env.client_ports]

    def front(self, env):
        """The command line of what runs in front, for a system that is `behind` something."""
        return cloudbridge(env, 1)

    def bridges(self, env):
        """Where backends dial, if they do."""
        return f"127.0.0.1:{env.bridge_port}"

    def argv(self, env, backends):
        """The command line; writes the configuration it needs into `env.dir`."""
        raise NotImplementedError


class Relay(System):
    """A floor: no HTTP, one backend connection per client."""

    def __init__(self, name, title, program, *extra):
        super().__init__(name, title)
        self.program = program
        self.extra = extra

    def missing(self, tools):
        return None if (tools / self.program).exists() else f"{tools / self.program} was not built"

    def version(self, tools):
        return "this checkout"

    def argv(self, env, backends):
        return [
            env.tools / self.program,
            "--listen",
            f"127.0.0.1:{env.port}",
            "--backend",
            f"127.0.0.1:{backends[0]}",
            *self.extra,
        ]


class Cloudbridge(System):
    """This proxy. Bridges from its own machine need no key."""

    bridged = True

    def missing(self, tools):
        return None if (tools / "cloudbridge").exists() else f"{tools / 'cloudbridge'} was not built"

    def version(self, tools):
        return output_of([tools / "cloudbridge", "-v"])

    def argv(self, env, backends):
        if env.plan.tls:
            tls = f"tls={env.dir}/cert.pem,{env.dir}/key.pem"
            return configured(env, [f"listen 127.0.0.1:{env.port} clients {tls}", f"listen {self.bridges(env)} bridges"])
        return cloudbridge(env, env.workers)


class CloudbridgeFiles(Cloudbridge):
    """The same with files of its own in front of the backends."""

    def argv(self, env, backends):
        return configured(env, [f"listen 127.0.0.1:{env.port}", f"site {HOST} docroot={files(env)}"])


def files(env):
    """A folder with the files of the scenarios."""
    folder = env.dir / "files"
    folder.mkdir(exist_ok=True)
    for name, size in FILES.items():
        (folder / name).write_bytes(bytes(size))
    return folder


class CloudbridgeUnix(Cloudbridge):
    """The same over Unix sockets, on both sides. One request over TCP shows that it is ready."""

    def clients(self, env):
        return [f"unix:{env.dir}/clients.sock"]

    def bridges(self, env):
        return f"unix:{env.dir}/bridges.sock"

    def argv(self, env, backends):
        lines = [f"listen 127.0.0.1:{env.port}", f"listen {self.clients(env)[0]} clients", f"listen {self.bridges(env)} bridges"]
        return configured(env, lines)


class CloudbridgeFull(Cloudbridge):
    """Everything switched on that an operator may want of each request."""

    announced = True

    def argv(self, env, backends):
        lines = [
            f"listen 127.0.0.1:{env.port} clients accept-proxy=127.0.0.0/8",
            f"listen {self.bridges(env)} bridges",
            f"listen unix:{env.dir}/admin.sock admin",
            f"access-log {env.dir}/access.log format=json",
            "request-id yes",
            "request-start s",
            "forwarded-style both",
        ]
        return configured(env, lines)

    def metrics(self, env):
        with socket.socket(socket.AF_UNIX) as admin:
            admin.connect(f"{env.dir}/admin.sock")
            admin.sendall(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")
            while admin.recv(1 << 20):
                pass


def configured(env, lines):
    """The proxy's command line with these settings."""
    path = env.dir / "cloudbridge.conf"
    path.write_text("\n".join([*lines, f"workers {env.workers}"]) + "\n")
    return [env.tools / "cloudbridge", "-c", path]


def cloudbridge(env, workers):
    """The proxy's command line, with clients and bridges on the port of `env`."""
    return [env.tools / "cloudbridge", "-w", workers, f"127.0.0.1:{env.port}"]


class Agents(Cloudbridge):
    """Proxies that share the agents of applications that listen."""

    bridged = False
    agents = True

    def __init__(self, name, title, size=1):
        super().__init__(name, title)
        self.size = size

    def missing(self, tools):
        return missing_programs(tools, "cloudbridge", "cloudbridge-agent")


class Fleet(Agents):
    """The same with HAProxy in front. Without `balance` there is only one proxy."""

    behind = True

    def __init__(self, name, title, balance=None):
        super().__init__(name, title)
        self.balance = balance

    def missing(self, tools):
        return super().missing(tools) or Haproxy().missing(tools)

    def count(self, plan):
        return plan.proxies if self.balance else 1

    def front(self, env):
        return haproxy(env, 1, self.balance or "roundrobin", [f"{port} check" for port in env.proxy_ports])


def missing_programs(tools, *programs):
    """Why a system of these programs cannot run here, or None."""
    for program in programs:
        if not (tools / program).exists():
            return f"{tools / program} was not built"
    return None


class Agent(System):
    """The agent in front of a backend that listens. Clients talk to the proxy, which is not counted."""

    behind = True

    def missing(self, tools):
        return missing_programs(tools, "cloudbridge-agent", "cloudbridge")

    def version(self, tools):
        return output_of([tools / "cloudbridge-agent", "-v"])

    def argv(self, env, backends):
        agent = [env.tools / "cloudbridge-agent", "--to", f"127.0.0.1:{backends[0]}", "--host", HOST]
        return [*agent, "-n", env.plan.bridges, f"127.0.0.1:{env.port}"]


class RelayedBridges(Relay):
    """The floor in the agent's place: the backend's bridges pass to the proxy through a relay, unread.

    The same proxy requests the same bytes at the same pace, so any extra cost is the agent's own."""

    bridged = True
    behind = True

    def argv(self, env, backends):
        relay = [env.tools / self.program, "--listen", f"127.0.0.1:{env.bridge_port}"]
        return [*relay, "--backend", f"127.0.0.1:{env.port}", *self.extra]


class Haproxy(System):
    """HAProxy as an ordinary reverse proxy: keep-alive on both sides, shared backend connections."""

    def __init__(self, name="haproxy", title="HAProxy", balance="roundrobin", maxconn=None, splice=False, size=1):
        super().__init__(name, title)
        self.size = size
        self.balance = balance
        self.maxconn = maxconn
        self.splice = splice

    def missing(self, tools):
        return None if output_of(["haproxy", "-v"]) else "HAProxy is not installed (apt-get install haproxy)"

    def version(self, tools):
        return output_of(["haproxy", "-v"])

    def argv(self, env, backends):
        limit = env.plan.maxconn or self.maxconn
        extra = f" maxconn {limit}" if limit else ""
        if env.plan.churn:
            # A typical setup where servers may vanish: noticed soon, and their requests are sent elsewhere.
            extra += " check inter 200ms fall 1 rise 1"
        servers = [f"{port}{extra}" for port in backends]
        # Not splice-auto: its heuristics guess wrong here.
        also = ["    option splice-request", "    option splice-response"] if self.splice else []
        if env.plan.churn:
            also += ["    retries 3", "    option redispatch 1", "    retry-on conn-failure empty-response"]
        return haproxy(env, env.workers, self.balance, servers, also)


def haproxy(env, threads, balance, servers, also=()):
    """HAProxy's command line, on the port of `env`; `servers` are ports, with options behind them."""
    lines = [
        "global",
        f"    nbthread {threads}",
        # Each takes two descriptors, and half of one more for splicing; haproxy does not start without them.
        f"    maxconn {(env.descriptors - SPARE) * 2 // 5}",
        "defaults",
        "    mode http",
        "    timeout connect 5s",
        "    timeout client 300s",
        "    timeout server 300s",
        "    timeout tunnel 300s",
        "    timeout queue 60s",
        "    option http-keep-alive",
        "    http-reuse always",
        *also,
        "frontend clients",
        f"    bind 127.0.0.1:{env.port} backlog 4096" + f" ssl crt {env.dir}/both.pem alpn http/1.1" * env.plan.tls,
        # The same fields that cloudbridge sets.
        "    option forwardfor",
        f"    http-request set-header X-Forwarded-Proto {'https' if env.plan.tls else 'http'}",
        "    http-request set-header X-Forwarded-Host %[req.hdr(host)]",
        "    default_backend servers",
        "backend servers",
        f"    balance {balance}",
        *[f"    server s{number} 127.0.0.1:{server}" for number, server in enumerate(servers)],
    ]
    path = env.dir / f"haproxy-{env.port}.cfg"
    path.write_text("\n".join(lines) + "\n")
    return ["haproxy", "-db", "-f", path]


class Nginx(System):
    """nginx as an ordinary reverse proxy: keep-alive on both sides, no access log."""

    def __init__(self, name="nginx", title="nginx", buffers=""):
        super().__init__(name, title)
        self.buffers = buffers

    def missing(self, tools):
        return None if output_of(["nginx", "-v"]) else "nginx is not installed (apt-get install nginx-light)"

    def version(self, tools):
        return output_of(["nginx", "-v"])

    def files(self, env):
        """The lines about files."""
        return ""

    def argv(self, env, backends):
        temporary = "".join(
            f"    {kind}_temp_path {env.dir}/{kind};\n"
            for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        servers = "".join(f"        server 127.0.0.1:{port};\n" for port in backends)
        reuseport = " reuseport" if env.workers > 1 else ""
        tls = (
            f"""ssl_certificate {env.dir}/cert.pem;
        ssl_certificate_key {env.dir}/key.pem;
        ssl_protocols TLSv1.2 TLSv1.3;
        ssl_session_cache shared:tls:10m;"""
            if env.plan.tls
            else ""
        )
        text = f"""\
daemon off;
user root;
pid {env.dir}/nginx.pid;
error_log stderr crit;
worker_processes {env.workers};
events {{
    worker_connections {env.descriptors - SPARE};
}}
http {{
{temporary}    access_log off;
    keepalive_timeout 300s;
    keepalive_requests 1000000000;
    client_max_body_size 0;
    upstream servers {{
{servers}        keepalive 1024;
        keepalive_requests 1000000000;
    }}
    server {{
        listen 127.0.0.1:{env.port} backlog=4096{reuseport}{" ssl" * env.plan.tls};
        {tls}
        proxy_http_version 1.1;
        proxy_set_header Host $host;
        proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
        proxy_set_header X-Forwarded-Proto $scheme;
        proxy_set_header X-Forwarded-Host $host;
        # Bodies go through memory; temporary files would be a different test.
        proxy_max_temp_file_size 0;
        proxy_request_buffering off;
        {self.buffers}
        {self.files(env)}
        location / {{
            proxy_set_header Connection "";
            proxy_pass http://servers;
        }}
        location /ws {{
            proxy_set_header Connection upgrade;
            proxy_set_header Upgrade $http_upgrade;
            proxy_pass http://servers;
        }}
    }}
}}
"""
        path = env.dir / "nginx.conf"
        path.write_text(text)
        return ["nginx", "-c", path, "-e", "stderr", "-p", env.dir]


class NginxFiles(Nginx):
    """nginx with files of its own, as its manual advises."""

    def files(self, env):
        root = files(env)
        places = "".join(f"        location = /{name} {{ root {root}; }}\n" for name in FILES)
        return f"sendfile on; tcp_nopush on; open_file_cache max=1000 inactive=60s;\n{places}"


class Sozu(System):
    """Sōzu as an ordinary reverse proxy, without TLS and access log.

    It keeps backend connections open, but each serves one client connection only."""

    # The newest that builds with the Rust that this project asks for.
    pinned = "2.1.0"

    def program(self, tools):
        """The path of its binary, or None: beside the tools, else in PATH."""
        return shutil.which("sozu", path=tools) or shutil.which("sozu")

    def missing(self, tools):
        if self.program(tools):
            return None
        return (
            f"there is no sozu in {tools} or in PATH (apt-get install protobuf-compiler, "
            f"then cargo install sozu --version {self.pinned} --locked)"
        )

    def version(self, tools):
        return output_of([self.program(tools), "--version"])

    def argv(self, env, backends):
        # Each takes two descriptors, and sozu asks for twice as many as it has connections before it starts.
        connections = (env.descriptors - SPARE) // 2
        servers = "".join(f'    {{ address = "127.0.0.1:{port}" }},\n' for port in backends)
        text = f"""\
command_socket = "{env.dir}/sozu.sock"
# Requests that succeed are logged as "info".
log_level = "error"
worker_count = {env.workers}
worker_automatic_restart = false
max_connections = {connections}
# One for each direction.
max_buffers = {2 * connections}
front_timeout = 300
back_timeout = 300
request_timeout = 300
activate_listeners = true

[[listeners]]
protocol = "http"
address = "127.0.0.1:{env.port}"

[clusters.servers]
protocol = "http"
load_balancing = "ROUND_ROBIN"
frontends = [
    {{ address = "127.0.0.1:{env.port}", hostname = "{HOST}" }},
]
backends = [
{servers}]
"""
        path = env.dir / "sozu.toml"
        path.write_text(text)
        return [self.program(env.tools), "start", "--config", path]


ALL = [
    Relay("relay-copy", "floor (copy)", "relay-copy"),
    Relay("relay-splice", "floor (splice)", "relay-splice"),
    Relay("relay-splice-1m", "floor (splice, 1 MiB pipes)", "relay-splice", "--pipe", 1 << 20),
    Cloudbridge("cloudbridge", "cloudbridge"),
    CloudbridgeFull("cloudbridge-full", "cloudbridge, everything on"),
    CloudbridgeFiles("cloudbridge-files", "cloudbridge"),
    CloudbridgeUnix("cloudbridge-unix", "cloudbridge, Unix sockets"),
    RelayedBridges("relay-bridges", "floor (copy) in the agent's place", "relay-copy"),
    Agent("agent", "cloudbridge-agent"),
    Nginx(),
    Nginx(
        "nginx-64k",
        "nginx, 64 KiB buffers",
        "proxy_buffers 16 64k; proxy_buffer_size 64k; proxy_busy_buffers_size 512k; client_body_buffer_size 64k;",
    ),
    NginxFiles("nginx-files", "nginx"),
    Haproxy(),
    Haproxy("haproxy-splice", "HAProxy splicing", splice=True),
    Haproxy("haproxy-leastconn", "HAProxy leastconn", balance="leastconn"),
    Haproxy("haproxy-maxconn1", "HAProxy leastconn, maxconn 1", balance="leastconn", maxconn=1),
    Haproxy("haproxy-random", "HAProxy random(1)", balance="random(1)"),
    Haproxy("haproxy-two", "HAProxy random(2)", balance="random(2)"),
    Haproxy("haproxy-leastconn-4", "4 HAProxies, leastconn", balance="leastconn", size=4),
    Haproxy("haproxy-maxconn1-4", "4 HAProxies, leastconn, maxconn 1", balance="leastconn", maxconn=1, size=4),
    Agents("cloudbridge-agents", "cloudbridge and agents"),
    Agents("cloudbridge-agents-4", "4 cloudbridges and agents", size=4),
    Fleet("fleet-one", "one proxy"),
    Fleet("fleet-roundrobin", "fleet, roundrobin", balance="roundrobin"),
    Fleet("fleet-leastconn", "fleet, leastconn", balance="leastconn"),
    Fleet("fleet-host", "fleet, hdr(host)", balance="hdr(host)"),
    Sozu("sozu", "Sōzu"),
]


class Env:
    """One running system with its backends, for one measurement of a scenario (`plan`)."""

    def __init__(self, system, plan, settings, directory):
        self.system = system
        self.plan = plan
        self.workers = plan.workers
        self.tools = settings.tools
        self.seconds = settings.seconds * plan.stretch
        self.host = HOST
        self.descriptors = settings.descriptors
        self.dir = Path(directory)
        self.proxy_cores, self.load_cores = settings.proxy_cores, settings.load_cores
        # Agents are counted: in a fleet they have the proxies' core.
        self.agent_cores = settings.proxy_cores
        if plan.spread:
            self.proxy_cores = self.load_cores = settings.proxy_cores | settings.load_cores
        self.find_ports()
        self.front = None
        self.proxy = Together()
        self.agents = Together()
        self.backends = []

    def find_ports(self):
        """Picks the ports for clients and for bridges; they differ if the system runs behind something."""
        size = self.system.count(self.plan)
        self.port = free_port()
        # Those of the system itself.
        self.proxy_ports = [self.port] if size == 1 else [free_port() for _ in range(size)]
        if self.system.agents and self.system.behind:
            self.proxy_ports = [free_port() for _ in range(size)]
        self.client_ports = [self.port] if self.system.behind else self.proxy_ports
        apart = self.system.behind or self.system.announced or self.plan.tls
        self.bridge_port = free_port() if apart else self.port

    def __enter__(self):
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_):
        self.stop()

    def make_certificate(self):
        """An issuer of our own, and a certificate by it."""
        curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
        (self.dir / "names").write_text(f"subjectAltName=DNS:{HOST},IP:127.0.0.1\nbasicConstraints=CA:FALSE\n")
        for argv in (
            ("req", "-x509", *curve, "-keyout", "ca.key", "-out", "ca.pem", "-days", "2", "-subj", "/CN=bench"),
            ("req", *curve, "-keyout", "key.pem", "-out", "csr.pem", "-subj", f"/CN={HOST}"),
            (
                *("x509", "-req", "-in", "csr.pem", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial"),
                *("-days", "2", "-extfile", "names", "-out", "cert.pem"),
            ),
        ):
            if subprocess.run(["openssl", *argv], cwd=self.dir, capture_output=True, check=False).returncode:
                raise Trouble("openssl is required for TLS (apt-get install openssl)")
        (self.dir / "both.pem").write_text((self.dir / "cert.pem").read_text() + (self.dir / "key.pem").read_text())
        self.tls = ssl.create_default_context(cafile=self.dir / "ca.pem")

    def start(self):
        """Starts backends and proxy, and waits until all bridges are open and a request succeeds."""
        if self.plan.tls:
            self.make_certificate()
        ports = [] if self.system.bridged else [free_port() for _ in self.plan.backends]
        for port, extra in zip(ports, self.plan.backends):
            self.backend("--listen", f"127.0.0.1:{port}", *extra)
        if self.system.behind:
            self.front = Process(self.system.front(self), self.load_cores, self.dir / "front.log")
            until(lambda: listening(self.front, self.port), "what is in front listening")
        for port in self.proxy_ports:
            self.proxy.start(self.system.argv(self.on(port), ports), self.proxy_cores, self.dir / f"proxy-{port}.log")
        if self.system.agents:
            self.start_agents(ports)
        if self.system.bridged:
            until(lambda: listening(self.proxy, self.bridge_port), f"{self.system.name} listening")
            for extra in self.plan.backends:
                self.bridges(HOST, self.plan.bridges, *extra)
        for port in self.client_ports:
            until(self.on(port).answers, f"an answer through {self.system.name}")

    def on(self, port):
        """The same with another port for clients."""
        other = copy.copy(self)
        other.port = port
        return other

    def start_agents(self, ports):
        """Starts an agent with a service for each of the backends, and waits until all proxies have accepted it."""
        for port in self.proxy_ports:
            until(lambda: listening(self.proxy, port), f"{self.system.name} listening")
        hosts = " ".join(f"host={name}" for name in self.plan.names)
        services = [f"service 127.0.0.1:{port} {hosts} n={self.plan.bridges}" for port in ports]
        path = self.dir / "agent.conf"
        path.write_text("\n".join(services) + "\n")
        proxies = [f"127.0.0.1:{port}" for port in self.proxy_ports]
        agent = [self.tools / "cloudbridge-agent", "-c", path, *proxies]
        self.agents.start(agent, self.agent_cores, self.dir / "agent.log")
        accepted = len(services) * len(proxies)

        def all_accepted():
            self.agents.check()
            return self.agents.said().count("accepts bridges") >= accepted

        until(all_accepted, "all bridges of the agents")

    def backend(self, *arguments):
        """Starts one more backend process."""
        log = self.dir / f"backend{len(self.backends)}.log"
        process = Process([self.tools / "backend", *arguments], self.load_cores, log)
        self.backends.append(process)
        return process

    def restart(self):
        """Restarts everything on another port."""
        self.stop()
        self.backends = []
        self.proxy, self.agents = Together(), Together()
        self.find_ports()
        self.start()

    def replace(self, index):
        """Kills a backend process and returns a function that starts it again."""
        old = self.backends[index]
        old.child.kill()
        old.child.wait()

        def again():
            self.backends[index] = Process(old.argv, self.load_cores, old.log)

        return again

    def bridges(self, host, count, *extra):
        """Starts a backend that holds `count` bridges, and waits until they are open."""
        name = ("--hosts", host) if isinstance(host, int) else ("--host", host)
        address = self.system.bridges(self)
        process = self.backend("--bridge", address, "--bridges", count, *name, *extra)

        def opened():
            process.check()
            return "all bridges are open" in process.said()

        until(opened, f"{count} bridges")
        return process

    def answers(self):
        """True if a request is answered with 200."""
        self.proxy.check()
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
        if self.plan.tls:
            connection = http.client.HTTPSConnection("127.0.0.1", self.port, timeout=5, context=self.tls)
        try:
            connection.connect()
            if self.system.announced:
                connection.sock.sendall(b"PROXY TCP4 192.0.2.1 127.0.0.1 51234 80\r\n")
            connection.request("GET", "/", headers={"Host": self.plan.names[0]})
            return connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def stop(self):
        """Ends everything, the proxy first, so that no backend dials in vain."""
        for process in [self.front, self.proxy, self.agents, *self.backends]:
            if process:
                process.stop()


def listening(process, port):
    """True if the port accepts connections; raises Trouble if the process has ended."""
    process.check()
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
