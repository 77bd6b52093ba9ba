"""Host keys that are made of another one, without the proxy's secret (doc/protocol.md, "Narrower keys")."""

import hashlib
import hmac

LABEL = b"cloudbridge-narrow-1\n"


def narrow(key, caveats):
    """The key with these caveats more, at least one: `narrow(key, ["host=a.example.com", "bridges=4"])`.

    Each must be written in its only way; the proxy refuses every other. Raises ValueError if `key` is none."""
    form, _, rest = key.partition(":")
    if form == "v3":
        digits, _, signed = rest.partition(":")
    elif form == "v2":
        digits, _, signed = rest.partition(":")
        signed = f"v2:{signed}"
    else:
        digits, signed = form, rest
    if len(digits) not in (40, 64) or not signed:
        raise ValueError("this is no host key with a hash")
    for caveat in caveats:
        digits = hmac.new(digits.lower().encode(), LABEL + caveat.encode(), hashlib.sha256).hexdigest()
        signed = f"{signed}+{caveat}"
    return f"v3:{digits}:{signed}"


def digest(key):
    """Names a key without giving it away: what `cloudbridge-key hash` prints, and the proxy's file `revoked` takes."""
    return hashlib.sha256(key.encode()).hexdigest()
