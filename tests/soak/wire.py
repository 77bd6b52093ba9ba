"""HTTP/1.1 as the programs of the soak speak it, over asyncio streams."""

import zlib

# Longest head, in bytes.
LONGEST = 16 * 1024


class Head:
    """The head of a request or a response."""

    def __init__(self, raw):
        lines = raw.decode("latin-1").split("\r\n")
        self.start = lines[0].split(" ", 2)
        self.fields = {}
        for line in lines[1:-2]:
            name, _, value = line.partition(":")
            self.fields[name.lower()] = value.strip()

    @property
    def status(self):
        """The status of a response."""
        return int(self.start[1])

    def closes(self):
        """Whether the connection ends after this message."""
        return self.fields.get("connection", "").lower() == "close"


async def read_head(reader):
    """The next head. Raises IncompleteReadError at the end of the connection."""
    return Head(await reader.readuntil(b"\r\n\r\n"))


async def read_response(reader):
    """The head of the next response that is not an interim one."""
    while True:
        head = await read_head(reader)
        if head.status >= 200 or head.status == 101:
            return head


async def pieces(reader, head):
    """The body that follows `head`, in pieces as they come."""
    if head.fields.get("transfer-encoding") == "chunked":
        while size := int((await reader.readuntil(b"\r\n")).split(b";")[0], 16):
            yield await reader.readexactly(size)
            await reader.readexactly(2)
        while await reader.readuntil(b"\r\n") != b"\r\n":
            pass
        return
    left = int(head.fields.get("content-length", "0"))
    while left:
        piece = await reader.read(min(left, 64 * 1024))
        if not piece:
            raise EOFError("the body is cut off")
        left -= len(piece)
        yield piece


def pattern(name, size):
    """`size` bytes that only the request called `name` has."""
    unit = (name + ".").encode()
    return (unit * (size // len(unit) + 1))[:size]


class Sum:
    """A checksum of a body that comes in pieces."""

    def __init__(self):
        self.value, self.size = 0, 0

    def add(self, piece):
        """Adds the next piece."""
        self.value = zlib.crc32(piece, self.value)
        self.size += len(piece)

    def __str__(self):
        return f"{self.size}:{self.value:08x}"


def sum_of(body):
    """The checksum of a whole body."""
    whole = Sum()
    whole.add(body)
    return str(whole)
