"""The scenarios, in the order in which they run."""

from dataclasses import dataclass

import measures
from measures import MIB
from report import BULK, FLEET, LATENCY, MEMORY, REQUESTS, WAITS

# The floor, and the proxies that do the same work.
PROXIES = ("relay-copy", "cloudbridge", "nginx", "haproxy", "sozu")
MOVERS = (
    *("relay-splice", "relay-splice-1m", "relay-copy", "cloudbridge"),
    *("nginx", "nginx-64k", "haproxy", "haproxy-splice", "sozu"),
)
AGENTS = ("cloudbridge-agents", "cloudbridge-agents-4")
POLICIES = (
    *("haproxy-random", "haproxy", "haproxy-two", "haproxy-leastconn", "haproxy-leastconn-4"),
    *("haproxy-maxconn1", "haproxy-maxconn1-4", *AGENTS),
)
FLEETS = ("fleet-one", "fleet-roundrobin", "fleet-leastconn", "fleet-host")
BALANCERS = ("cloudbridge", "haproxy", "haproxy-leastconn", "haproxy-maxconn1")


@dataclass(frozen=True)
class Scenario:
    """One thing to measure, and the systems to measure it on."""

    name: str
    title: str
    # Called with a running Env; returns the sample's figures.
    measure: object
    systems: tuple = PROXIES
    # The columns of its table.
    columns: tuple = REQUESTS
    workers: int = 1
    # The proxy and the load share all cores instead of having separate ones.
    spread: bool = False
    # Bridges that each backend process holds to cloudbridge, or the agent for it to each proxy.
    bridges: int = 64
    # The names that agents offer.
    names: tuple = ("app.bench",)
    # Proxies of a fleet.
    proxies: int = 1
    # Extra arguments of each backend process.
    backends: tuple = ((),)
    # Clients connect by TLS.
    tls: bool = False
    # HAProxy's maxconn per server; None for the system's own.
    maxconn: int = None
    # Backends are killed and restarted meanwhile.
    churn: bool = False
    # The measured time, as a multiple of --seconds.
    stretch: int = 1
    # How the scenario was set up, for the reader of the table.
    note: str = ""


SMALL = [
    Scenario("small-64", "Small GET, keep-alive, 64 clients", measures.requests(64)),
    Scenario("small-8", "Small GET, keep-alive, 8 clients", measures.requests(8), bridges=8),
    Scenario("small-512", "Small GET, keep-alive, 512 clients", measures.requests(512), bridges=512),
    Scenario(
        "two-workers",
        "Small GET, keep-alive, 64 clients, 2 workers on one core",
        measures.requests(64),
        systems=("cloudbridge", "nginx", "haproxy", "sozu"),
        workers=2,
        note="Both workers run on the proxy's core, like the one of `small-64`: the cost of sharing the work.",
    ),
    Scenario(
        "two-workers-spread",
        "Small GET, keep-alive, 64 clients, 2 workers on all cores",
        measures.requests(64),
        systems=("cloudbridge", "nginx", "haproxy", "sozu"),
        workers=2,
        spread=True,
        note="Proxy, load and backend share all cores; compare with `one-worker-spread`.",
    ),
    Scenario(
        "one-worker-spread",
        "Small GET, keep-alive, 64 clients, 1 worker on all cores",
        measures.requests(64),
        systems=("cloudbridge", "nginx", "haproxy", "sozu"),
        spread=True,
    ),
    Scenario(
        "connect",
        "New client connection for each request, 64 clients",
        measures.requests(64, "Connection: close"),
        note="The floor and Sōzu also dial a backend connection per client; the others keep theirs.",
    ),
    Scenario(
        "everything-on",
        "Small GET, keep-alive, 64 clients, with everything that a request may be given",
        measures.announced(64),
        systems=("cloudbridge", "cloudbridge-full"),
        note="Access log as JSON, PROXY headers, request ids, times, both styles of forwarding fields, and metrics that are "
        "read each second.",
    ),
    Scenario(
        "unix-sockets",
        "Small GET, keep-alive, 64 clients, by our own load",
        measures.one_by_one(64),
        systems=("relay-copy", "cloudbridge", "cloudbridge-unix"),
        note="The floor is over TCP. Over Unix sockets, load and backend are on this machine, as they are here in any case.",
    ),
    Scenario(
        "agent-small-get",
        "Small GET, keep-alive, 64 clients, through the agent",
        measures.requests(64),
        systems=("relay-bridges", "agent", "relay-copy"),
        note="Only the agent is counted; the proxy in front runs on the load's core. The floor in its place relays a "
        "backend's bridges, unread, to the same proxy; the other is the floor of `small-64`, with no proxy in front.",
    ),
]

# Name, title, body size, connections.
SIZES = (("16m", "16 MiB", 16 * MIB, 8), ("1g", "1 GiB", 1024 * MIB, 4))
# The size that applications write, and one so large that framing costs next to nothing.
CHUNKS = {"chunked": 64 * 1024, "large-chunks": MIB}


def bulk(label, size_name, size, connections, up, chunks):
    """A scenario with large bodies."""
    way = "up" if up else "down"
    chunk = CHUNKS.get(chunks)
    framing = f"chunks of {chunk // 1024} KiB" if chunk else "Content-Length"
    return Scenario(
        f"bulk-{label}-{chunks + '-' if chunks else ''}{way}",
        f"{size_name} {'uploads' if up else 'downloads'}, {framing}, {connections} clients",
        measures.bulk(size, connections, up, chunk),
        systems=MOVERS,
        columns=BULK,
    )


BULKS = [
    bulk(label, size_name, size, connections, up, chunks)
    for label, size_name, size, connections in SIZES
    for up in (False, True)
    for chunks in ("", *CHUNKS)
]

MANY = [
    Scenario(
        "many-on-few",
        "Small GET, keep-alive, 512 clients on 16 bridges",
        measures.requests(512),
        systems=("cloudbridge", "haproxy"),
        bridges=16,
        maxconn=16,
        note="HAProxy sends at most 16 concurrent requests to the server and queues the rest.",
    ),
    Scenario(
        "parked",
        "Small GET, keep-alive, 64 clients, with 10,000 bridges parked for 1,000 other hosts",
        measures.with_parked(10_000, 1_000, measures.requests(64)),
        systems=("cloudbridge",),
        note="Compare with `small-64`.",
    ),
    Scenario(
        "idle",
        "Private memory per idle connection, in bytes",
        measures.idle(clients=5_000, bridges=10_000),
        systems=("cloudbridge", "nginx", "haproxy", "sozu"),
        columns=MEMORY,
        note="5,000 clients that have sent nothing yet; the same after one request each; 10,000 parked bridges.",
    ),
]

# Four backends of 2 ms and four of 20 ms, each with one request at a time.
UNEQUAL = tuple(("--delay", delay, "--slots", 1) for delay in (2, 2, 2, 2, 20, 20, 20, 20))

# Measures the combined capacity of the unequal backends. It cannot be computed: the round trip to the proxy between
# two requests makes it less than 4 x 500 + 4 x 50 requests/s. There are enough clients to keep every backend busy.
SATURATED = Scenario(
    "saturated",
    "Unequal backends with more clients than they can serve",
    measures.requests(32),
    systems=("cloudbridge", "haproxy-maxconn1"),
    bridges=1,
    backends=UNEQUAL,
)


def worst(percent, churn=False):
    """Unequal backends at a share of their capacity."""
    return Scenario(
        f"unequal-{percent}{'-churn' if churn else ''}",
        f"Unequal backends at {percent} % of their capacity{', with churn' if churn else ''}",
        measures.unequal(percent / 100),
        systems=BALANCERS,
        columns=LATENCY,
        bridges=1,
        backends=UNEQUAL,
        churn=churn,
        stretch=2,
        note="Four backends take 2 ms and four 20 ms, each with one request at a time. Their capacity is the most that any "
        "system reached in a trial with 32 clients. Requests are due at random times (Poisson), the same for all "
        "systems, and latency counts from then."
        + (" Every second another backend is killed, and restarted half a second later." * churn),
    )


TENANTS = [
    Scenario(
        f"tenants-{workers}",
        f"Small GET, keep-alive, 64 clients, each request for another of 500 hosts, {workers} worker{'s' * (workers > 1)}",
        measures.tenants(500, 2, 64),
        systems=("cloudbridge",),
        workers=workers,
        note="Two bridges for each host, all workers on the proxy's core. With more workers the bridge is mostly parked on "
        "another one.",
    )
    for workers in (1, 2, 4)
]

# How many servers there are, each with one request at a time.
SERVERS = 16
# How long they work on a request, on average: long beside the way to them (a tenth of a millisecond here), short enough
# for many requests in few seconds.
WORK_MS = 20


def policy(percent, suffix="", times="exponential", work=WORK_MS, systems=POLICIES, stretch=2):
    """Waits at a share of the servers' capacity."""
    kind = "one request in a hundred a hundred times longer" if times == "heavy-tailed" else "exponential"
    return Scenario(
        f"policies-{percent}{suffix}",
        f"Waits for {SERVERS} servers at {percent} % of their capacity; service times of {work} ms, {kind}",
        measures.policies(times, percent / 100, work),
        systems=systems,
        columns=WAITS,
        bridges=1,
        backends=(("--slots", 1),) * SERVERS,
        stretch=stretch,
        note=f"In multiples of the mean service time. Requests come at random times (Poisson) to any of "
        "the proxies, and say how long the server sleeps; all systems get the same. A wait is what is left of the time from "
        "when the request was due to its answer, without the service. HAProxies are told of all servers; cloudbridges have "
        "an agent with `-n 1` for each.",
    )


WAITING = [
    policy(80),
    policy(90),
    policy(80, "-heavy", times="heavy-tailed"),
    policy(90, "-slow", work=100, systems=("haproxy-maxconn1", "haproxy-maxconn1-4", *AGENTS), stretch=5),
]

# Names of a fleet's applications, so that balancing by host has something to choose from.
FLEET_HOSTS = 64


def fleet(proxies, places):
    """A fleet behind HAProxy."""
    few = places < 16
    return Scenario(
        f"fleet-{proxies}{'-few' if few else ''}",
        f"Small GET, keep-alive, 64 clients, HAProxy, {proxies} proxies, 4 applications of {places} places",
        measures.shared(FLEET_HOSTS, 64),
        systems=FLEETS,
        columns=FLEET,
        bridges=places,
        names=tuple(f"host{number}.bench" for number in range(FLEET_HOSTS)),
        proxies=proxies,
        backends=((),) * 4,
        note=f"Each request for another of {FLEET_HOSTS} hosts, which all applications have. CPU time of all proxies and the agent "
        "together; HAProxy is part of the load." + " More clients than places: requests wait." * few,
    )


FLEET_SIZES = [fleet(proxies, places) for proxies in (2, 4) for places in (32, 4)]

LATENCIES = [
    Scenario(
        "rate",
        "Latency at a fixed rate, 64 clients",
        measures.fixed_rate,
        columns=LATENCY,
        note="The rate, the same for all, is half of what the slowest system reached in a trial. "
        "Latency counts from the moment a request was due (no coordinated omission).",
    ),
    *[worst(percent) for percent in (70, 80, 90)],
    worst(70, churn=True),
    Scenario(
        "websocket",
        "WebSocket echo, messages of 64 bytes, 64 clients",
        measures.echo(64, 64),
        note="A request is one round trip of a message.",
    ),
]

SERVING = ("cloudbridge-files", "nginx-files")

FILES = [
    Scenario(
        "file-1k",
        "A file of 1 KiB, keep-alive, 64 clients",
        measures.file("1k", 64),
        systems=SERVING,
        note="nginx with sendfile, tcp_nopush and open_file_cache.",
    ),
    Scenario(
        "file-1m",
        "A file of 1 MiB, 8 clients",
        measures.large_file("1m", 8),
        systems=SERVING,
        columns=BULK,
        note="As `file-1k`.",
    ),
]

SECURE = ("cloudbridge", "nginx", "haproxy")

TLS = [
    Scenario("tls-small-64", "Small GET by TLS, keep-alive, 64 clients", measures.requests(64), systems=SECURE, tls=True),
    Scenario(
        "tls-full",
        "New TLS connection for each request, full handshake, 16 clients",
        measures.handshakes(16, resume=False),
        systems=SECURE,
        tls=True,
        note="ECDSA P-256, X25519, TLS 1.3; the same certificate for all.",
    ),
    Scenario(
        "tls-resumed",
        "New TLS connection for each request, resumed by a ticket, 16 clients",
        measures.handshakes(16, resume=True),
        systems=SECURE,
        tls=True,
    ),
    *[
        Scenario(
            f"tls-bulk-16m-{'up' if up else 'down'}",
            f"16 MiB {'uploads' if up else 'downloads'} by TLS, Content-Length, 8 clients",
            measures.encrypted_bulk(16 * MIB, 8, up),
            systems=("cloudbridge", "nginx", "nginx-64k", "haproxy"),
            columns=BULK,
            tls=True,
        )
        for up in (False, True)
    ],
    Scenario(
        "tls-idle",
        "Private memory per idle TLS connection, in bytes",
        measures.encrypted_idle(1_000),
        systems=SECURE,
        columns=MEMORY,
        tls=True,
        note="1,000 clients after one request each.",
    ),
]

ALL = [*SMALL, *BULKS, *MANY, *TENANTS, *FILES, *TLS, *LATENCIES, *WAITING, *FLEET_SIZES]
