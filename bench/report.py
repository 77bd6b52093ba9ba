"""Turns samples into medians, tables and the files of a run."""

import json
import statistics
from dataclasses import dataclass

import charts
import targets


@dataclass(frozen=True)
class Column:
    """A figure of the samples, and its place in a table."""

    key: str
    heading: str
    digits: int = 0
    # The figure is divided by this.
    unit: float = 1
    # Also shown as a multiple of the floor's and the peers'.
    compared: bool = False


LATENCIES = (Column("p50", "p50 µs"), Column("p99", "p99 µs"), Column("p999", "p99.9 µs"))
COST = Column("cpu_us", "CPU µs/request", 2, compared=True)
REST = (Column("busy", "core busy %"), Column("private", "private MiB", 1, 1 << 20))
REQUESTS = (COST, Column("rate", "requests/s"), *LATENCIES, *REST)
BULK = (Column("cpu_s_gb", "CPU s/GB", 3, compared=True), Column("gb_s", "GB/s", 2), *REST)
LATENCY = (
    *LATENCIES,
    Column("max", "max µs"),
    Column("unanswered", "unanswered"),
    Column("rate", "requests/s"),
    Column("cpu_us", "CPU µs/request", 2),
)
# In multiples of the mean work.
WAITS = (
    Column("mean_works", "mean", 3),
    Column("p99_works", "p99", 2),
    Column("p999_works", "p99.9", 2),
    Column("max_works", "max", 2),
    Column("unanswered", "unanswered"),
    Column("rate", "requests/s"),
    Column("cpu_us", "proxies, CPU µs/request", 1),
    Column("agents_us", "agents, CPU µs/request", 1),
)
FLEET = (
    Column("all_us", "CPU µs/request", 2, compared=True),
    Column("cpu_us", "of proxies", 2),
    Column("agents_us", "of agents", 2),
    Column("rate", "requests/s"),
    *LATENCIES,
    *REST,
)
MEMORY = (
    Column("fresh_client", "fresh client"),
    Column("idle_client", "idle client"),
    Column("parked_bridge", "parked bridge"),
)


def median(samples, key):
    """The median of a figure over the rounds, or None if no round has it."""
    values = [sample[key] for sample in samples if sample.get(key) is not None]
    return statistics.median(values) if values else None


def spread(samples, key):
    """Half the range, in percent of the median."""
    values = [sample[key] for sample in samples if sample.get(key) is not None]
    middle = statistics.median(values) if values else 0
    return 50 * (max(values) - min(values)) / middle if middle else 0


def number(value, digits=0):
    """Formats a figure for a table."""
    if value is None:
        return "-"
    return f"{value:,.{digits}f}".replace(",", " ")


def ratio(value, reference):
    """`value` as a multiple of `reference`."""
    return f"{value / reference:.2f}x" if value and reference else "-"


def table(scenario, results, titles):
    """The Markdown table of one scenario; `results` maps system names to samples."""
    main = scenario.columns[0]
    floor = next((name for name in results if name.startswith("relay")), None)
    references = [name for name in (floor, "nginx", "haproxy", "fleet-one") if name in results and main.compared]
    headings = [main.heading, "±%", *(f"x {titles[name]}" for name in references)]
    headings += [column.heading for column in scenario.columns[1:]] + ["errors"]
    lines = [f"### {scenario.title} (`{scenario.name}`)", ""]
    if scenario.note:
        lines += [scenario.note, ""]
    lines += ["| system | " + " | ".join(headings) + " |", "| --- |" + " ---: |" * len(headings)]
    for name, samples in results.items():
        value = median(samples, main.key)
        cells = [cell(samples, main), number(spread(samples, main.key))]
        cells += [ratio(value, median(results[other], main.key)) for other in references]
        cells += [cell(samples, column) for column in scenario.columns[1:]]
        cells += [number(sum(sample.get("errors", 0) for sample in samples))]
        lines.append(f"| {titles[name]} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def cell(samples, column):
    """The median of a column."""
    value = median(samples, column.key)
    return "-" if value is None else number(value / column.unit, column.digits)


def write(directory, about, scenarios, raw, titles):
    """Writes the results so far: raw.json, table.md and the charts."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "raw.json").write_text(json.dumps({"about": about, "scenarios": raw}, indent=1) + "\n")
    lines = [f"# {about['date']}, {about['machine']}", "", f"Made by `{about['command']}`.", ""]
    lines += [f"- {key}: {value}" for key, value in about.items() if key not in ("date", "machine", "command")]
    lines += ["", *targets.table(raw, median), ""]
    for scenario in scenarios:
        results = raw.get(scenario.name)
        if not results:
            continue
        lines.append(table(scenario, results, titles))
        chart = draw(scenario, results, titles)
        (directory / f"{scenario.name}.svg").write_text(chart)
        lines.append(f"![{scenario.title}]({scenario.name}.svg)\n")
    (directory / "table.md").write_text("\n".join(lines))


def draw(scenario, results, titles):
    """The chart of a scenario: bars of its main figure, or latencies on a logarithmic scale."""
    keys = [column.key for column in scenario.columns]
    if keys[0] in ("p50", "mean_works"):
        what = "µs: p50, p99, p99.9" if keys[0] == "p50" else "waits in times of the mean work: mean, p99, p99.9"
        rows = [(titles[name], [median(samples, key) for key in keys[:3]]) for name, samples in results.items()]
        return charts.ranges(scenario.title, f"{what} (logarithmic)", rows)
    groups = [column for column in scenario.columns if column.key == keys[0] or scenario.columns is MEMORY]
    rows = [
        (titles[name] + (f", {column.heading}" if len(groups) > 1 else ""), median(samples, column.key), name)
        for column in groups
        for name, samples in results.items()
        if median(samples, column.key) is not None
    ]
    unit = "bytes" if scenario.columns is MEMORY else scenario.columns[0].heading
    return charts.bars(scenario.title, unit, rows)
