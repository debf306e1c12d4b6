"""Public keys for ssh, as they stand in authorized_keys(5); private ones are told from them."""

from __future__ import annotations

import base64
import binascii
import re

KINDS = (
    "ssh-ed25519",
    "ssh-rsa",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "sk-ssh-ed25519@openssh.com",
    "sk-ecdsa-sha2-nistp256@openssh.com",
)
"""What sshd takes today; DSA is gone from OpenSSH."""

PATTERN = rf"^({'|'.join(re.escape(kind) for kind in KINDS)}) +[A-Za-z0-9+/]+={{0,2}}( .*)?$"
LONGEST = 8192

_PRIVATE = re.compile("PRIVATE KEY|PuTTY-User-Key-File")


def is_private(text: str) -> bool:
    """True for what nobody but its owner may see."""
    return _PRIVATE.search(text) is not None


def looks_like_one(text: str) -> bool:
    """Tell a key from the path of a file that holds some."""
    return " " in text.strip() and re.match(r"(sk-)?(ssh|ecdsa|sk)-", text.strip()) is not None


def objection(line: str) -> str:
    """Return what is wrong with one public key, or nothing."""
    if len(line) > LONGEST:
        return f"is longer than {LONGEST} characters"
    kind, _, rest = line.strip().partition(" ")
    if kind not in KINDS:
        return f"must begin with one of {', '.join(KINDS[:3])}, …"
    body = rest.strip().partition(" ")[0]
    try:
        blob = base64.b64decode(body, validate=True)
    except (binascii.Error, ValueError):
        return "is damaged: its second word is not base64"
    length = int.from_bytes(blob[:4], "big")
    if blob[4 : 4 + length] != kind.encode() or len(blob) <= 4 + length:
        return f"is damaged or cut off: its second word is no key of kind {kind}"
    return ""


def lines(text: str) -> list[str]:
    """Return the keys of a file: its lines without comments and blank ones."""
    stripped = (line.strip() for line in text.splitlines())
    return [line for line in stripped if line and not line.startswith("#")]
