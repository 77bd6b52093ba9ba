"""What happens to the world, and when: all of it follows from the seed."""

import dataclasses
import random

# Seconds before the first fault, and after the last one has ended.
QUIET_BEFORE, QUIET_AFTER = 2.0, 4.0
# Seconds between two faults.
PAUSE = (0.4, 2.5)
# Seconds after the end of a fault in which its target is left alone: so that faults add up only on purpose.
REST = 3.0


@dataclasses.dataclass(frozen=True)
class Fault:
    """A kind of fault."""

    name: str
    # How often it is chosen, against the others.
    weight: int
    # To which targets it can happen: the prefix of their names.
    target: str
    # How long it lasts, in seconds.
    lasts: tuple = (0.0, 0.0)
    # Whether other reverse proxies can be put through it too.
    common: bool = True
    # One target that it never happens to: the agent that is measured at the end must be that of the beginning.
    spares: str = ""
    # What it needs beyond processes of one's own: `network`, `mount`, or a program.
    needs: str = ""


FAULTS = [
    Fault("restart-application", 4, "member", (0.1, 0.5)),
    Fault("kill-application", 4, "member", (0.1, 1.0)),
    Fault("stop-application", 3, "member", (0.2, 3.0)),
    Fault("deploy", 4, "member", (0.1, 0.5), common=False, spares="member-0"),
    Fault("kill-agent", 3, "member", (0.0, 1.0), common=False, spares="member-0"),
    Fault("stop-agent", 2, "member", (0.2, 3.0), common=False),
    Fault("reload-agent", 1, "member", common=False),
    Fault("stop-proxy", 2, "proxy", (0.2, 2.0)),
    Fault("reload-proxy", 3, "proxy"),
    Fault("restart-proxy", 2, "proxy-b", (0.0, 0.5)),
    Fault("kill-proxy", 1, "proxy-b", (0.0, 1.0)),
    Fault("many-connections", 2, "proxy-a", (1.0, 3.0)),
    Fault("full-disk", 2, "disk", (0.5, 3.0), common=False, needs="mount"),
    Fault("partition", 3, "far", (0.2, 5.0), needs="network"),
    Fault("restart-library", 3, "library", (0.0, 0.3), common=False),
    Fault("kill-library", 2, "library", (0.0, 0.5), common=False),
]


@dataclasses.dataclass(frozen=True)
class Event:
    """A fault that happens to one target."""

    at: float
    fault: str
    target: str
    lasts: float

    def __str__(self):
        return f"{self.at:7.2f} s  {self.fault} {self.target}" + (f" for {self.lasts:.2f} s" if self.lasts else "")


def suits(name, fault):
    """Whether the fault can happen to this target."""
    return name.startswith(fault.target) and name != fault.spares


def plan(seed, seconds, targets, possible):
    """The events of a run of so many seconds. `possible` says whether a fault can be done here."""
    rng = random.Random(f"schedule {seed}")
    faults = [fault for fault in FAULTS if possible(fault)]
    busy = dict.fromkeys(targets, 0.0)
    events, at = [], QUIET_BEFORE
    while at < seconds - QUIET_AFTER:
        fault = rng.choices(faults, [fault.weight for fault in faults])[0]
        lasts = rng.uniform(*fault.lasts)
        free = [name for name in targets if suits(name, fault) and busy[name] <= at]
        if free and at + lasts < seconds - QUIET_AFTER:
            target = rng.choice(free)
            events.append(Event(at, fault.name, target, lasts))
            busy[target] = at + lasts + REST
        at += rng.uniform(*PAUSE)
    return events
