"""What must hold of a soak: nothing doubled, nothing mixed, and every failure has a fault that explains it.

A request has a right to be answered. What is taken from it, and by what:

- a restart in good order (TERM, HUP, a deployment), a stop (SIGSTOP), a partition shorter than every timeout and a full
  disk take nothing;
- a proxy whose connections are all taken by strangers may refuse a client that comes meanwhile, with a 503, and then
  nobody has received its request; it takes nothing else;
- a proxy that ends in good order refuses, with a 503, requests for a program that has no bridge there at that moment,
  because it has been restarted and has not dialled yet; nobody has received them;
- a killed proxy takes the requests that it had;
- a killed application or agent takes a POST that it had, but no GET: that is sent again, once. So a GET fails only if
  two of them were killed on it, or one while its response was passed on.

An idle connection may be closed at any time (RFC 9112, section 9.3.1): a client whose request met that, and was
received by nobody, sends it again. Such requests are counted and no failures."""

import collections
import dataclasses

# Seconds around a request in which a fault can concern it: what is gone is noticed a moment later.
BEFORE, AFTER = 0.3, 0.1


# What a client is told whose request has no bridge at a proxy that ends.
ENDING = "answered 503 the proxy is shutting down"
# What a client without a place is told; that of a tunnel has been read no further.
REFUSALS = "answered 503 too many connections are open", "answered 503"


class Journals:
    """What the applications say that they have done."""

    def __init__(self, paths):
        self.received = collections.Counter()
        self.executed = collections.Counter()
        for path in paths:
            if path.exists():
                for line in path.read_text().splitlines():
                    step, name, *_ = line.split()
                    self.received[name] += step == "R"
                    self.executed[name] += step == "X"


@dataclasses.dataclass
class Findings:
    """What came of a soak."""

    answered: collections.Counter
    aborted: int = 0
    # Requests that met the close of an idle connection.
    redialled: int = 0
    # Failures with a killed proxy; those that other kills explain, of GETs and of POSTs.
    lost_with_proxy: int = 0
    # Clients that came while a proxy had no place for them.
    refused: int = 0
    # Requests for a program that was away, at a proxy that ended.
    unserved: int = 0
    lost_gets: int = 0
    lost_posts: int = 0
    doubled: int = 0
    mixed: int = 0
    unexplained: int = 0
    # Each of the last three in words, and whatever else is wrong.
    wrong: list = dataclasses.field(default_factory=list)
    # Seconds that answered requests took: the median, the slowest in a hundred, the slowest.
    times: tuple = (0.0, 0.0, 0.0)


def overlapping(request, log):
    """The entries of the log that concern the request by their time."""
    return [entry for entry in log if entry[2] < request.end + AFTER and entry[3] > request.begin - BEFORE]


def concerns(name, request):
    """Whether a program could serve the request."""
    if name.startswith("library-"):
        return request.host.startswith(name.removeprefix("library-") + ".")
    return name.startswith("member-") and request.host.count(".") == 1


def explain(request, log, journals, heals):
    """Why the request was not answered, or None. `heals`: the proxy has promised what the head of this file says."""
    near = overlapping(request, log)
    of_proxy = [what for name, what, *_ in near if name == request.to]
    if "killed" in of_proxy:
        return "lost with its proxy"
    received = journals.received[request.id]
    if "crowded" in of_proxy and request.outcome in REFUSALS and not received:
        return "refused"
    is_away = any(concerns(name, request) and what == "away" for name, what, *_ in near)
    if is_away and "terminated" in of_proxy and request.outcome == ENDING and not received:
        return "unserved"
    is_idle_close = not request.heard and not received and request.outcome.startswith("lost")
    if is_idle_close and (request.reused or of_proxy):
        return "redialled"
    killed = [name for name, what, *_ in near if concerns(name, request) and what == "killed"]
    if not heals:
        ended = [name for name, *_ in near if concerns(name, request)]
        return "lost" if ended else None
    if request.is_post and not received:
        # An agent killed between its receipt and the first byte, or an application that closed on the request.
        return "lost" if any(concerns(name, request) and what != "deployed" for name, what, *_ in near) else None
    enough = 1 if request.is_post or request.heard or request.kind == "tunnel" else 2
    return "lost" if len(killed) >= enough else None


def judge(requests, log, journals, heals):
    """Looks at every request."""
    findings = Findings(collections.Counter())
    for request in requests:
        text = f"{request.kind} {request.id} of {request.host} by {request.to} after {request.end - request.begin:.2f} s: {request.outcome}"
        if request.outcome == "answered":
            findings.answered[request.kind] += 1
            if request.kind in ("post", "upload") and journals.executed[request.id] != 1:
                findings.unexplained += 1
                findings.wrong.append(f"answered, and executed {journals.executed[request.id]} times: {text}")
        elif request.outcome == "aborted":
            findings.aborted += 1
        elif request.outcome.startswith("WRONG"):
            findings.mixed += 1
            findings.wrong.append(text)
        else:
            match explain(request, log, journals, heals):
                case "redialled":
                    findings.redialled += 1
                case "refused":
                    findings.refused += 1
                case "unserved":
                    findings.unserved += 1
                case "lost with its proxy":
                    findings.lost_with_proxy += 1
                case "lost" if request.is_post:
                    findings.lost_posts += 1
                case "lost":
                    findings.lost_gets += 1
                case _:
                    findings.unexplained += 1
                    near = [f"{name} {what}" for name, what, *_ in overlapping(request, log)]
                    findings.wrong.append(f"{text}; received {journals.received[request.id]} times; near: {near}")
        if request.is_post and max(journals.received[request.id], journals.executed[request.id]) > 1:
            findings.doubled += 1
            findings.wrong.append(f"received {journals.received[request.id]} times: {text}")
    times = sorted(one.end - one.begin for one in requests if one.outcome == "answered" and one.kind in ("get", "post"))
    if times:
        findings.times = times[len(times) // 2], times[len(times) * 99 // 100], times[-1]
    return findings
