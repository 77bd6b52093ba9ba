"""Who has which name. No key is kept, only its digest."""

import contextlib
import ipaddress
import re
import sqlite3
import time

import keys

# Names of a visitor: a label of a host name (RFC 1035, section 2.3.1) with at least three characters. Two hyphens in its
# third and fourth place would be a name in another script (RFC 5890), which may look like one of somebody else's.
NAME = re.compile(r"(?!..--)[a-z](?:[a-z0-9-]{1,30}[a-z0-9])")

# Names that visitors may take for the operator's, that programs look for by themselves, or that are in use here.
RESERVED = frozenset(
    "abuse account accounts admin administrator api app apps auth authorise authorize autoconfig autodiscover billing blog cdn "
    "cloudbridge cloud dashboard demo dev dns docs ftp help host hostmaster imap info internal key keys localhost login "
    "mail manager mta-sts mx news noc ns ns1 ns2 ntp open operator ops payment pop postmaster proxy public register root "
    "secure security signup smtp sso staff static status support sysadmin system tenant tenants test webmaster webmail "
    "wpad www".split()
)

DAY = 24 * 3600

# How long a key is good, and for how long its name is then kept for its holder.
LIFETIME = 30 * DAY
KEPT = 30 * DAY

# Names of one address, and of all together.
PER_ADDRESS = 3
IN_ALL = 100_000

# Bridges of one name.
BRIDGES = 8


class Refused(Exception):
    """Why there is no name or no key, in a sentence for the visitor."""


class Accounts:
    """The accounts in a file. Threads may share it."""

    def __init__(self, path, domain, domain_key, now=time.time):
        self._path, self.domain, self._key, self._now = path, domain, domain_key, now
        with self._open() as db:
            db.execute(
                "CREATE TABLE IF NOT EXISTS accounts (name TEXT PRIMARY KEY, digest TEXT NOT NULL UNIQUE, address TEXT NOT NULL,"
                " created INTEGER NOT NULL, expires INTEGER NOT NULL, suspended TEXT)"
            )
            db.execute("CREATE INDEX IF NOT EXISTS by_address ON accounts (address)")

    @contextlib.contextmanager
    def _open(self, begin="BEGIN IMMEDIATE"):
        """A connection with a transaction of its own: it writes all of what is done here, or nothing."""
        db = sqlite3.connect(self._path, timeout=10, isolation_level=None)
        try:
            db.execute(begin)
            yield db
            db.execute("COMMIT")
        finally:
            db.close()

    def add(self, name, address):
        """Gives a visitor at `address` this name, and returns its key. Raises Refused."""
        name, network, now = name.strip().lower(), network_of(address), int(self._now())
        if not NAME.fullmatch(name):
            raise Refused("A name has 3 to 32 letters, digits and hyphens, begins with a letter and ends with no hyphen.")
        if name in RESERVED:
            raise Refused(f"The name {name} is reserved.")
        key, expires = self._make(name, now)
        with self._open() as db:
            # One that was suspended must not come back by waiting.
            db.execute("DELETE FROM accounts WHERE expires < ? AND suspended IS NULL", (now - KEPT,))
            if count(db, "name = ?", name):
                raise Refused(f"The name {name} is taken.")
            if count(db, "address = ?", network) >= PER_ADDRESS:
                raise Refused(f"There are {PER_ADDRESS} names for your address already.")
            if count(db, "?", 1) >= IN_ALL:
                raise Refused("All names are taken.")
            row = (name, keys.digest(key), network, now, expires)
            db.execute("INSERT INTO accounts VALUES (?, ?, ?, ?, ?, NULL)", row)
        return name, key, expires

    def renew(self, key):
        """Makes a new key for the holder of this one, which lets no bridge in any more. Raises Refused."""
        now = int(self._now())
        with self._open() as db:
            of_key = "SELECT name, suspended FROM accounts WHERE digest = ?"
            found = db.execute(of_key, (keys.digest(key.strip()),)).fetchone()
            if found is None:
                raise Refused("This is not the last key of any name here.")
            name, suspended = found
            if suspended is not None:
                raise Refused(f"The name {name} is suspended: {suspended}")
            new, expires = self._make(name, now)
            db.execute("UPDATE accounts SET digest = ?, expires = ? WHERE name = ?", (keys.digest(new), expires, name))
        return name, new, expires

    def _make(self, name, now):
        # Bridges behind the host, so that each name is counted by itself; an expiry makes no other key of it.
        expires = now + LIFETIME
        caveats = [f"host={name}.{self.domain}", f"bridges={BRIDGES}", f"expiry={expires}"]
        return keys.narrow(self._key, caveats), expires

    def state(self, name):
        """Until when the present key of a name is good, and why the name is suspended if it is; None if nobody has it."""
        # A question waits for nobody who writes.
        with self._open("BEGIN") as db:
            return db.execute("SELECT expires, suspended FROM accounts WHERE name = ?", (name,)).fetchone()

    def suspend(self, name, reason):
        """Suspends a name, or with None as the reason lets it in again. False if there is none."""
        with self._open() as db:
            return db.execute("UPDATE accounts SET suspended = ? WHERE name = ?", (reason, name)).rowcount > 0

    def remove(self, name):
        """Forgets a name: somebody else may have it then. False if there is none."""
        with self._open() as db:
            return db.execute("DELETE FROM accounts WHERE name = ?", (name,)).rowcount > 0

    def all(self):
        """Name, address, created, expires and suspended of each."""
        with self._open("BEGIN") as db:
            return db.execute("SELECT name, address, created, expires, suspended FROM accounts ORDER BY name").fetchall()


def count(db, condition, value):
    return db.execute(f"SELECT count(*) FROM accounts WHERE {condition}", (value,)).fetchone()[0]


def network_of(address):
    """What one customer has: an IPv4 address, or the /64 of an IPv6 address."""
    parsed = ipaddress.ip_address(address)
    parsed = getattr(parsed, "ipv4_mapped", None) or parsed
    return str(parsed if parsed.version == 4 else ipaddress.ip_network((parsed, 64), strict=False))
