"""The project's targets, compared with the measurements of a run."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Target:
    """A figure of cloudbridge or its agent, absolute or as a multiple of another, and its target."""

    title: str
    scenario: str
    key: str
    must: float
    aim: float
    # The divisor, as scenario and system; None for an absolute figure.
    by: tuple = None
    # Higher is better.
    more: bool = False
    # The system that is measured.
    system: str = "cloudbridge"


TARGETS = [
    Target("small GET, x floor", "small-64", "cpu_us", 1.10, 1.05, ("small-64", "relay-copy")),
    Target("small GET, x nginx", "small-64", "cpu_us", 0.85, 0.80, ("small-64", "nginx")),
    Target("2 workers, x 1 worker (one core)", "two-workers", "cpu_us", 1.10, 1.03, ("small-64", "cloudbridge")),
    Target(
        "2 workers, x 1 worker (all cores)",
        "two-workers-spread",
        "cpu_us",
        1.10,
        1.03,
        ("one-worker-spread", "cloudbridge"),
    ),
    Target("4 workers, 500 hosts, x 1 worker", "tenants-4", "cpu_us", 1.30, 1.15, ("tenants-1", "cloudbridge")),
    Target("512 clients, x nginx", "small-512", "cpu_us", 0.75, 0.65, ("small-512", "nginx")),
    *[
        Target(f"{name}, x splice floor", name, "cpu_s_gb", 1.1, 1.0, (name, "relay-splice"))
        for size in ("16m", "1g")
        for way in ("down", "up")
        for chunks in ("", "large-chunks-", "chunked-")
        for name in [f"bulk-{size}-{chunks}{way}"]
    ],
    Target("file of 1 KiB, x nginx", "file-1k", "cpu_us", 1.0, 0.8, ("file-1k", "nginx-files"), system="cloudbridge-files"),
    Target("file of 1 MiB, x nginx", "file-1m", "cpu_s_gb", 1.0, 0.9, ("file-1m", "nginx-files"), system="cloudbridge-files"),
    Target("connection per request, x HAProxy", "connect", "cpu_us", 0.75, 0.65, ("connect", "haproxy")),
    Target(
        "512 clients on 16 bridges, requests/s x 64 on 64",
        "many-on-few",
        "rate",
        1.0,
        1.1,
        ("small-64", "cloudbridge"),
        more=True,
    ),
    Target("10,000 parked bridges, x none", "parked", "cpu_us", 1.05, 1.02, ("small-64", "cloudbridge")),
    Target(
        "agent, small GET, x floor in its place",
        "agent-small-get",
        "cpu_us",
        1.15,
        1.10,
        ("agent-small-get", "relay-bridges"),
        system="agent",
    ),
    Target(
        "agent, small GET, x floor with no proxy before it",
        "agent-small-get",
        "cpu_us",
        1.25,
        1.20,
        ("agent-small-get", "relay-copy"),
        system="agent",
    ),
    *[
        Target(
            f"{title} of 4 proxies at 90 %, x one",
            "policies-90-slow",
            key,
            1.10,
            1.05,
            ("policies-90-slow", "cloudbridge-agents"),
            system="cloudbridge-agents-4",
        )
        for title, key in (("mean wait", "mean_works"), ("p99 wait", "p99_works"))
    ],
    *[
        Target(f"{title}, x {peer}", name, key, 1.0, 0.8, (name, peer.lower()))
        for title, name, key in (
            ("small GET by TLS", "tls-small-64", "cpu_us"),
            ("full TLS handshake", "tls-full", "cpu_us"),
            ("resumed TLS handshake", "tls-resumed", "cpu_us"),
            ("16 MiB downloads by TLS", "tls-bulk-16m-down", "cpu_s_gb"),
            ("16 MiB uploads by TLS", "tls-bulk-16m-up", "cpu_s_gb"),
            ("idle TLS client", "tls-idle", "idle_client"),
        )
        for peer in ("HAProxy", "nginx")
    ],
    Target("idle client, bytes", "idle", "idle_client", 400, 300),
    Target("parked bridge, bytes", "idle", "parked_bridge", 500, 400),
]


def table(raw, median):
    """The lines of the Markdown table of all measured targets; empty if there are none."""
    rows = []
    for target in TARGETS:
        value = median(raw.get(target.scenario, {}).get(target.system, []), target.key)
        if target.by:
            scenario, system = target.by
            reference = median(raw.get(scenario, {}).get(system, []), target.key)
            value = value / reference if value is not None and reference else None
        if value is not None:
            cells = [target.title, shown(value), shown(target.must), shown(target.aim), rating(target, value)]
            rows.append(f"| {' | '.join(cells)} |")
    if not rows:
        return []
    return ["| target | measured | must reach | aim | |", "| --- | ---: | ---: | ---: | --- |", *rows]


def shown(value):
    """Ratios with two decimals, bytes with none."""
    return f"{value:.2f}" if value < 10 else f"{value:.0f}"


def rating(target, value):
    """Which of the two marks was reached."""
    for mark, word in ((target.aim, "aim met"), (target.must, "reached")):
        if value >= mark if target.more else value <= mark:
            return word
    return "**not reached**"
