"""A file system (FUSE) that stops: what its names say waits until a file appears.

    python3 disk.py FOLDER GATE

It is mounted at FOLDER, which needs root and /dev/fuse, until its standard input ends. The first line that it prints is
"mounted", or why it cannot be. Looking up a name that begins with slow-lookup, opening one that begins with slow-open, and
reading one that begins with slow-read wait until there is a file GATE.
"""

import ctypes
import errno
import os
import signal
import struct
import sys
import threading
import time

FOLDER, GATE = sys.argv[1:]
FILES = {
    "fast.txt": b"fast",
    "slow-lookup.txt": b"looked up",
    "slow-open.txt": b"opened",
    "slow-read.txt": b"read",
    "slow-read-large": bytes(range(256)) * 4096,
}
ROOT = 1
NODES = {number: name for number, name in enumerate(FILES, ROOT + 1)}
NUMBERS = {name: number for number, name in NODES.items()}

libc = ctypes.CDLL(None, use_errno=True)
device = os.open("/dev/fuse", os.O_RDWR) if os.path.exists("/dev/fuse") else -1


def wait():
    while not os.path.exists(GATE):
        time.sleep(0.01)


def attributes(node):
    is_root = node == ROOT
    size = 0 if is_root else len(FILES[NODES[node]])
    mode = 0o40755 if is_root else 0o100644
    times = (784111777,) * 3
    return struct.pack("<QQQQQQIIIIIIIIII", node, size, 0, *times, 1, 1, 1, mode, 1, 0, 0, 0, 4096, 0)


def reply(unique, body=b"", error=0):
    try:
        os.write(device, struct.pack("<IiQ", 16 + len(body), -error, unique) + body)
    except OSError:
        # The one that asked has gone.
        pass


def lookup(unique, node, body):
    name = body.rstrip(b"\0").decode()
    if name.startswith("slow-lookup"):
        wait()
    if name in NUMBERS:
        number = NUMBERS[name]
        reply(unique, struct.pack("<QQQQII", number, 0, 1, 1, 0, 0) + attributes(number))
    else:
        reply(unique, error=errno.ENOENT)


def open_file(unique, node, body):
    if NODES.get(node, "").startswith("slow-open"):
        wait()
    reply(unique, struct.pack("<QII", 0, 0, 0))


def read(unique, node, body):
    _, offset, size = struct.unpack_from("<QQI", body)
    if NODES[node].startswith("slow-read"):
        wait()
    reply(unique, FILES[NODES[node]][offset : offset + size])


def init(unique, node, body):
    # PARALLEL_DIROPS: a lookup that waits does not hold up the others.
    reply(unique, struct.pack("<IIIIHHIIHHI28x", 7, 31, 131072, 1 << 18, 64, 48, 131072, 1, 32, 0, 0))


def answer(unique, node, body):
    reply(unique, struct.pack("<QII", 1, 0, 0) + attributes(node))


def nothing(unique, node, body):
    reply(unique)


# LOOKUP, GETATTR, OPEN, READ, RELEASE, FLUSH, INIT, OPENDIR, RELEASEDIR, ACCESS
ANSWERS = {1: lookup, 3: answer, 14: open_file, 15: read, 18: nothing, 25: nothing, 26: init, 27: open_file, 29: nothing}
ANSWERS[34] = nothing
# FORGET, INTERRUPT, BATCH_FORGET
UNANSWERED = (2, 36, 42)


def serve():
    while True:
        try:
            request = os.read(device, 1 << 18)
        except OSError:
            return
        _, operation, unique, node = struct.unpack_from("<IIQQ", request)
        if operation in UNANSWERED:
            continue
        if operation not in ANSWERS:
            reply(unique, error=errno.ENOSYS)
            continue
        arguments = (unique, node, request[40:])
        threading.Thread(target=ANSWERS[operation], args=arguments, daemon=True).start()


def main():
    if device < 0:
        return print("there is no /dev/fuse", flush=True)
    options = f"fd={device},rootmode=40000,user_id=0,group_id=0,allow_other".encode()
    if libc.mount(b"slow", FOLDER.encode(), b"fuse", 6, options) != 0:
        return print(f"it cannot be mounted: {os.strerror(ctypes.get_errno())}", flush=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    try:
        threading.Thread(target=serve, daemon=True).start()
        print("mounted", flush=True)
        sys.stdin.read()
    finally:
        # MNT_DETACH: those that wait there are not waited for.
        libc.umount2(FOLDER.encode(), 2)


main()
