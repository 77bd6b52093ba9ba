"""A network of the soak's own with a far machine in it, as far as the kernel is concerned.

The soak runs once more as the first process of an empty network namespace: nothing that it sends can leave, and every
port is free. The far machine is a second namespace behind a cable; a partition pulls its end out."""

import os
import shutil
import subprocess
import sys

# RFC 2544 sets this network aside for tests.
NEAR, FAR = "198.18.0.1", "198.18.0.2"
INSIDE = "SOAK_INSIDE"
# What the soak has of its own. Its processes end with it, however it ends.
OWN = ["--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]


def enter():
    """Runs this program again in namespaces of its own. Returns in there; or here, if that is not permitted."""
    if os.environ.get(INSIDE):
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
        return True
    needs = all(shutil.which(program) for program in ("unshare", "nsenter", "ip", "mount"))
    if not needs or subprocess.run(["unshare", *OWN, "true"], capture_output=True).returncode:
        return False
    os.environ[INSIDE] = "1"
    os.execvp("unshare", ["unshare", *OWN, sys.executable, *sys.argv])


class Far:
    """The far machine."""

    def __init__(self):
        self.holder = subprocess.Popen(["unshare", "--net", "sleep", "infinity"])
        here = os.readlink("/proc/self/ns/net")
        while os.readlink(f"/proc/{self.holder.pid}/ns/net") == here:
            if self.holder.poll() is not None:
                raise OSError("there can be no second network namespace")
        # Each end knows the other's hardware address: a machine that has gone answers nothing, and nobody says so.
        self.shell(
            f"ip link add near address 02:00:00:00:00:01 type veth"
            f" peer name far address 02:00:00:00:00:02 netns {self.holder.pid}"
        )
        self.shell(f"ip addr add {NEAR}/30 dev near && ip link set near up")
        self.shell(f"ip neigh add {FAR} lladdr 02:00:00:00:00:02 dev near nud permanent")
        self.shell("ip link set lo up", inside=True)
        self.shell(f"ip addr add {FAR}/30 dev far && ip link set far up", inside=True)
        self.shell(f"ip neigh add {NEAR} lladdr 02:00:00:00:00:01 dev far nud permanent", inside=True)

    def words(self):
        """What a command begins with that runs there."""
        return ["nsenter", f"--net=/proc/{self.holder.pid}/ns/net"]

    def shell(self, line, inside=False):
        """Runs a line of shell."""
        subprocess.run([*(self.words() if inside else []), "sh", "-ec", line], check=True)

    def partition(self, on):
        """Pulls the cable out, or puts it back."""
        # At the far end, so that packets from here vanish without an error.
        self.shell(f"ip link set far {'down' if on else 'up'}", inside=True)
        if not on:
            self.shell(f"ip neigh replace {NEAR} lladdr 02:00:00:00:00:01 dev far nud permanent", inside=True)

    def close(self):
        """Removes it."""
        self.holder.kill()
        self.holder.wait()
