"""The reverse proxies that can be put through the soak: how each is configured and started."""

import http.client
import json
import shutil
import signal
import socket

# All requests are for this host; the library called NAME serves NAME.soak.test.
HOST = "soak.test"
# Descriptors of a proxy: few enough that `many-connections` uses them all up.
DESCRIPTORS = 700
WORKERS = 2


class System:
    """A reverse proxy. `servers` are the addresses of the applications."""

    # Backends dial it, through an agent or a library.
    bridged = False
    program = ""
    # What ends it in good order, and what has it read its settings again.
    ends, reloads = signal.SIGTERM, signal.SIGHUP

    def __init__(self, tools):
        self.tools = tools

    def missing(self):
        """Why it cannot run here, or None."""
        return None if shutil.which(self.program) else f"{self.program} is not installed"

    def argv(self, folder, name, port, servers):
        """The command line of the proxy called `name`; writes its settings into `folder`."""
        raise NotImplementedError

    def info(self, folder, name):
        """What the proxy called `name` says about itself."""
        return {}


class Cloudbridge(System):
    """This proxy, with its defaults but for what the soak needs."""

    bridged = True

    def missing(self):
        built = all((self.tools / name).exists() for name in ("cloudbridge", "cloudbridge-agent"))
        return None if built else f"cloudbridge is not built in {self.tools}"

    def argv(self, folder, name, port, servers):
        path = folder / f"{name}.conf"
        path.write_text(
            f"listen *:{port}\n"
            f"workers {WORKERS}\n"
            f"descriptors {DESCRIPTORS}\n"
            f"listen unix:{folder}/{name}.sock admin\n"
            # Bridges come from the far machine too; nobody else can reach these ports.
            "open-bridges yes\n"
            f"access-log {folder}/disk/{name}.access\n"
            f"log-file {folder}/disk/{name}.log\n"
        )
        return [self.tools / "cloudbridge", "-c", path]

    def info(self, folder, name):
        connection = http.client.HTTPConnection("localhost", timeout=10)
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.settimeout(10)
        connection.sock.connect(str(folder / f"{name}.sock"))
        connection.request("GET", "/state.json")
        answer = json.loads(connection.getresponse().read())
        connection.close()
        return answer


class Haproxy(System):
    """HAProxy as its documentation has it for servers that come and go; a POST is never sent twice."""

    program = "haproxy"
    ends, reloads = signal.SIGUSR1, signal.SIGUSR2

    def argv(self, folder, name, port, servers):
        lines = [
            "global",
            f"    nbthread {WORKERS}",
            f"    maxconn {DESCRIPTORS // 2 - 60}",
            "defaults",
            "    mode http",
            "    timeout connect 5s",
            "    timeout client 60s",
            "    timeout server 60s",
            "    timeout tunnel 1h",
            "    timeout queue 60s",
            "    retries 3",
            "    option redispatch 1",
            "    retry-on conn-failure empty-response",
            "frontend clients",
            f"    bind *:{port}",
            "    http-request disable-l7-retry if METH_POST",
            "    default_backend servers",
            "backend servers",
            "    balance leastconn",
            "    option abortonclose",
        ]
        lines += [f"    server s{number} {server} maxconn 8 check inter 1s fall 2 rise 1" for number, server in enumerate(servers)]
        path = folder / f"{name}.cfg"
        path.write_text("\n".join(lines) + "\n")
        return ["haproxy", "-W", "-db", "-f", path]


class Nginx(System):
    """nginx as its documentation has it for a pool of servers; none is set aside for ten seconds for one failure."""

    program = "nginx"
    ends = signal.SIGQUIT

    def argv(self, folder, name, port, servers):
        own = folder / f"{name}.d"
        own.mkdir(exist_ok=True)
        paths = "".join(f"    {kind}_temp_path {own}/{kind};\n" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
        pool = "".join(f"        server {server} max_fails=0;\n" for server in servers)
        path = own / "nginx.conf"
        path.write_text(f"""\
daemon off;
user root;
pid {own}/pid;
error_log stderr crit;
worker_processes {WORKERS};
worker_rlimit_nofile {DESCRIPTORS};
events {{ worker_connections {DESCRIPTORS // 2}; }}
http {{
{paths}    access_log off;
    client_max_body_size 0;
    upstream servers {{
        least_conn;
{pool}        keepalive 64;
    }}
    map $http_upgrade $connection_upgrade {{ default upgrade; '' ''; }}
    server {{
        listen *:{port};
        location / {{
            proxy_http_version 1.1;
            proxy_request_buffering off;
            proxy_set_header Host $host;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Connection $connection_upgrade;
            proxy_pass http://servers;
        }}
    }}
}}
""")
        return ["nginx", "-c", path, "-e", "stderr", "-p", own]


SYSTEMS = {"cloudbridge": Cloudbridge, "haproxy": Haproxy, "nginx": Nginx}
