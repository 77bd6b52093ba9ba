"""Whether everything is where it was: descriptors, connections, pipes, queues and memory."""

import dataclasses
import time

import systems
from process import until
from world import PLACES

# Pipes that a worker keeps for the next body, two descriptors each (`net/pipe.rs`).
PIPES = 40
# Memory may grow by half, and by so many KiB: buffers that are kept for reuse.
GROWTH, SLACK = 1.5, 16 * 1024
# How long the last connections may linger, in seconds.
QUIET = 15


@dataclasses.dataclass
class Snapshot:
    """What the proxy and the agent that are never ended have."""

    descriptors: dict
    memory: dict
    state: dict


def lasting(world):
    """The programs that run from the beginning to the end, by name."""
    found = {"proxy-a": world.proxies[0].program}
    if world.system.bridged:
        found["member-0-agent"] = world.members[0].agent
    return found


def snapshot(world):
    """Now, when no client is connected and all bridges are parked."""
    until(world.is_quiet, "all bridges are parked and nothing waits")
    info = world.proxies[0].info()
    programs = lasting(world)
    return Snapshot(
        {name: program.descriptors() for name, program in programs.items()},
        {name: program.memory() for name, program in programs.items()},
        info.get("connections", {}) | {name: info["counters"][name] for name in ("waiting", "pipes_lent") if name in info.get("counters", {})},
    )


def differences(before, after):
    """What is not where it was, in words."""
    wrong = []
    if before.state != after.state:
        wrong.append(f"the proxy counts {after.state}, and in the beginning {before.state}")
    for name, now in after.descriptors.items():
        then = before.descriptors[name]
        # An agent keeps idle connections to its application for a while.
        spare = PLACES if name.endswith("-agent") else 0
        bounds = {"socket": then["socket"] + spare, "file": then["file"], "pipe": then["pipe"] + 2 * PIPES * systems.WORKERS}
        wrong += [
            f"{name} has {now[kind]} descriptors of kind {kind}, and had {then[kind]}"
            for kind, most in bounds.items()
            if now[kind] > most
        ]
    for name, now in after.memory.items():
        then = before.memory[name]
        if now > then * GROWTH + SLACK:
            wrong.append(f"{name} has {now} KiB of memory, and had {then} KiB")
    return wrong


def compare(world, before):
    """What is not where it was, once the last connections have had the time to end."""
    end = time.monotonic() + QUIET
    while wrong := differences(before, snapshot(world)):
        if time.monotonic() > end:
            return wrong
        time.sleep(0.2)
    return []
