"""How a scenario is measured: functions that take a running Env and return a sample, a dict of figures.

Times are in microseconds, rates per second, memory in bytes, unless the key says otherwise."""

import socket
import threading

import loads

MIB = 1 << 20
# Warm-up, as a share of the measured time, to fill pools and train branch predictors.
WARM_UP = 0.15
# Connections that an open-loop load may need while a system falls behind.
OPEN_LOOP_CONNECTIONS = 6_000
# Most bridges per process: well below the usual descriptor limit.
BRIDGES_A_PROCESS = 5_000
# Prometheus asks every 15 seconds by default.
SCRAPE_SECONDS = 1.0
# A backend goes away this often, for half of the interval.
CHURN_SECONDS = 1.0


def warmed(env, load):
    """Runs `load` once to warm up, then measures it."""
    whole, env.seconds = env.seconds, max(1, round(env.seconds * WARM_UP))
    load()
    env.seconds = whole
    return counted(env, load)


def counted(env, load):
    """Measures `load`, with the proxy's CPU time and memory."""
    before, agents_before = env.proxy.cpu(), env.agents.cpu()
    sample = load()
    after, agents_after = env.proxy.cpu(), env.agents.cpu()
    sample["cpu"] = after["total"] - before["total"]
    sample["cpu_user"] = after["user"] - before["user"]
    sample["busy"] = 100 * sample["cpu"] / sample["seconds"]
    sample["private"] = env.proxy.private()
    if "bytes" in sample:
        sample["cpu_s_gb"] = 1e9 * sample["cpu"] / sample["bytes"]
        sample["gb_s"] = sample["bytes"] / 1e9 / sample["seconds"]
    else:
        sample["cpu_us"] = 1e6 * sample["cpu"] / max(1, sample["requests"])
        if env.agents.processes:
            agents = agents_after["total"] - agents_before["total"]
            sample["agents_us"] = 1e6 * agents / max(1, sample["requests"])
            sample["all_us"] = sample["cpu_us"] + sample["agents_us"]
        sample["rate"] = sample["requests"] / sample["seconds"]
    return sample


def requests(connections, *headers):
    """Small GETs on `connections` connections, as fast as possible."""

    def measure(env):
        return warmed(env, lambda: loads.wrk(env, connections=connections, headers=headers))

    return measure


def file(name, connections):
    """A small file on `connections` connections, as fast as possible."""
    return lambda env: warmed(env, lambda: loads.wrk(env, path=f"/{name}", connections=connections))


def large_file(name, connections):
    """A large file, again and again."""
    return lambda env: warmed(env, lambda: loads.ours(env, "bulk", connections=connections, path=f"/{name}"))


def announced(connections):
    """Small GETs as in `requests`, over connections that begin with a PROXY header if the system expects one; the
    system's metrics, if it has any, are read each second."""

    def measure(env):
        over = threading.Event()
        reader = threading.Thread(target=scrape, args=(env, over), daemon=True)
        reader.start()
        try:
            return warmed(env, lambda: loads.wrk_announced(env, connections))
        finally:
            over.set()
            reader.join()

    return measure


def scrape(env, over):
    """Reads the system's metrics each second until `over` is set."""
    while env.system.metrics and not over.wait(SCRAPE_SECONDS):
        env.system.metrics(env)


def one_by_one(connections):
    """Small GETs as in `requests`, by our own load, which knows Unix sockets."""

    def load(env):
        sample = loads.ours(env, "bulk", connections=connections)
        # Bodies of 64 bytes: it is the requests that count.
        del sample["bytes"]
        return sample

    return lambda env: warmed(env, lambda: load(env))


def shared(hosts, connections):
    """Small GETs, each for another of `hosts` names, which all backends have."""
    return lambda env: warmed(env, lambda: loads.wrk_hosts(env, hosts, connections))


def policies(times, share, work):
    """Requests at random times, which say how long the backends work on them, `work` ms on average, at a share of their
    capacity.

    All systems get the same requests. Waits are what is left of a latency without the work."""

    def measure(env):
        rate = share * len(env.plan.backends) * 1000 / work

        def load():
            options = {"poisson": True, "work": times, "mean": work, "connections": OPEN_LOOP_CONNECTIONS}
            return loads.ours(env, "rate", rate=rate, **options)

        # No warm-up, as in `unequal`.
        sample = counted(env, load)
        sample["asked"] = rate
        for key in ("mean", "p50", "p99", "p999", "max"):
            sample[f"{key}_works"] = sample[key] / 1000 / work
        return sample

    return measure


def tenants(hosts, bridges, connections):
    """Small GETs, each for another of `hosts` names that have `bridges` bridges each."""

    def measure(env):
        env.bridges(hosts, hosts * bridges)
        return warmed(env, lambda: loads.wrk_hosts(env, hosts, connections))

    return measure


def bulk(size, connections, up, chunk):
    """Bodies of `size` bytes, with Content-Length or in chunks."""
    if up:
        options = {"upload": size, "path": "/upload"} | ({"chunk": chunk} if chunk else {})
    else:
        options = {"path": f"/chunked/{size}/{chunk}" if chunk else f"/bytes/{size}"}

    def measure(env):
        return warmed(env, lambda: loads.ours(env, "bulk", connections=connections, **options))

    return measure


def handshakes(connections, resume):
    """A connection by TLS for each request, with a full handshake or a resumed one."""

    def load(env):
        options = {"resume": True} if resume else {}
        sample = loads.ours(env, "tls", connections=connections, close=True, ca=env.dir / "ca.pem", **options)
        del sample["bytes"]
        return sample

    return lambda env: warmed(env, lambda: load(env))


def encrypted_bulk(size, connections, up):
    """Bodies of `size` bytes by TLS."""
    options = {"upload": size, "path": "/upload"} if up else {"path": f"/bytes/{size}"}

    def measure(env):
        return warmed(env, lambda: loads.ours(env, "tls", connections=connections, ca=env.dir / "ca.pem", **options))

    return measure


def encrypted_idle(clients):
    """Private memory per client that is connected by TLS and has had one request answered."""

    def measure(env):
        def ask():
            sock = socket.create_connection(("127.0.0.1", env.port))
            client = env.tls.wrap_socket(sock, server_hostname=env.host)
            client.sendall(f"GET / HTTP/1.1\r\nHost: {env.host}\r\n\r\n".encode())
            return client, not client.recv(65536).startswith(b"HTTP/1.1 200 ")

        warm = [ask() for _ in range(50)]
        before = env.proxy.private()
        held = [ask() for _ in range(clients)]
        sample = {"idle_client": (env.proxy.private() - before) / clients, "private": before}
        sample["errors"] = sum(failed for _, failed in warm + held)
        for client, _ in warm + held:
            client.close()
        return sample

    return measure


def park(env, bridges, hosts):
    """Opens bridges for `hosts` names that get no requests."""
    while bridges:
        some = min(bridges, BRIDGES_A_PROCESS)
        env.bridges(hosts, some)
        bridges -= some


def with_parked(bridges, hosts, measure):
    """The same measurement with bridges parked in the background."""

    def measure_with(env):
        park(env, bridges, hosts)
        return measure(env)

    return measure_with


def idle(clients, bridges):
    """Private memory per connected client, per client after one request, and per parked bridge."""

    def measure(env):
        address = ("127.0.0.1", env.port)
        request = f"GET / HTTP/1.1\r\nHost: {env.host}\r\n\r\n".encode()
        sample = {"errors": 0}
        before = env.proxy.private()
        held = [socket.create_connection(address) for _ in range(clients)]
        # This answer comes after all of them, so all have been accepted.
        env.answers()
        sample["fresh_client"] = (env.proxy.private() - before) / clients
        for client in held:
            client.sendall(request)
            sample["errors"] += not client.recv(65536).startswith(b"HTTP/1.1 200 ")
        sample["idle_client"] = (env.proxy.private() - before) / clients
        for client in held:
            client.close()
        if env.system.bridged:
            # Restarted, because bridges would otherwise reuse the clients' memory.
            env.restart()
            before = env.proxy.private()
            park(env, bridges, bridges // 10)
            sample["parked_bridge"] = (env.proxy.private() - before) / bridges
        sample["private"] = before
        return sample

    return measure


def fixed_rate(env):
    """Small GETs at `env.rate` per second."""
    sample = warmed(env, lambda: loads.ours(env, "rate", rate=env.rate, connections=64))
    sample["asked"] = env.rate
    return sample


def unequal(share):
    """Small GETs at random times, at `share` of `env.capacity`; backends come and go if the scenario says so."""

    def measure(env):
        def load():
            over = threading.Event()
            churning = threading.Thread(target=churn, args=(env, over), daemon=True)
            if env.plan.churn:
                churning.start()
            try:
                rate = round(env.capacity * share)
                return loads.ours(env, "rate", rate=rate, poisson=True, connections=OPEN_LOOP_CONNECTIONS)
            finally:
                over.set()
                if env.plan.churn:
                    churning.join()

        # No warm-up: a system that fell behind in it would carry its backlog into the measurement.
        sample = counted(env, load)
        sample["asked"] = round(env.capacity * share)
        return sample

    return measure


def churn(env, over):
    """Kills and restarts one backend after another until `over` is set."""
    index = 0
    while not over.wait(CHURN_SECONDS / 2):
        again = env.replace(index)
        over.wait(CHURN_SECONDS / 2)
        again()
        index = (index + 1) % len(env.backends)


def echo(size, connections):
    """WebSocket round trips."""

    def measure(env):
        return warmed(env, lambda: loads.ours(env, "echo", path="/ws", size=size, connections=connections))

    return measure
