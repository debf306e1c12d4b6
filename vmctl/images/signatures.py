"""Checks who signed a publisher's checksums, with gpgv and the keyrings that the host has.

Keyrings come from the host's own packages: a key that came over the same line as what it signs
would prove nothing.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import dataclasses
import os
import pathlib
import re
import tempfile
from collections.abc import Iterator, Sequence

from vmctl import errors, process
from vmctl.deadline import Deadline

_PATIENCE = 30.0
_LIMITS = process.Limits(address_space=1 << 30, cpu_seconds=20, file_size=64 << 20)
_MOST_KEYRING = 64 << 20
_ARMOUR = re.compile(
    rb"-----BEGIN PGP PUBLIC KEY BLOCK-----\r?\n(?:[^\r\n]+\r?\n)*\r?\n([A-Za-z0-9+/=\s]+?)"
    rb"-----END PGP PUBLIC KEY BLOCK-----"
)
_PACKAGES = (
    ("/usr/share/keyrings/ubuntu-", "ubuntu-keyring"),
    ("/usr/share/keyrings/debian-", "debian-archive-keyring"),
    ("/usr/share/distribution-gpg-keys/", "distribution-gpg-keys"),
    ("/etc/pki/rpm-gpg/", "fedora-gpg-keys"),
)
"""Which package of a distribution a keyring comes with, by the beginning of its path."""


@dataclasses.dataclass(frozen=True, slots=True)
class Checked:
    """What became of a signature: `text` is what was signed.

    `signer` names the key, empty where the signature could not be checked; then `why` says why,
    and `remedy` what to do about it.
    """

    text: bytes
    signer: str = ""
    why: str = ""
    remedy: str = ""


def check(text: bytes, signature: bytes, keyrings: Sequence[str], source: str) -> Checked:
    """Check who signed a text; an empty `signature` means that the text carries its own.

    Raises RefusedError for a signature that is bad, or of a key that no keyring has. Without gpgv
    and without a keyring nothing can be checked, and that is what the result says.
    """
    there = [keyring for keyring in keyrings if os.path.isfile(keyring)]
    if not there:
        return _unchecked(text, "no keyring with the publisher's key is on this host", keyrings)
    if process.find("gpgv") is None:
        return Checked(text, why="gpgv is not installed", remedy="Install the package gpgv.")
    with tempfile.TemporaryDirectory(prefix="vmctl-gpgv-") as name:
        directory = pathlib.Path(name)
        words = [word for keyring in _readable(there, directory) for word in ("--keyring", keyring)]
        signed, output = directory / "signed", directory / "output"
        signed.write_bytes(text)
        if signature:
            (directory / "signature").write_bytes(signature)
            operands = [directory / "signature", signed]
        else:
            words += ["--output", str(output)]
            operands = [signed]
        command = ["gpgv", "--homedir", name, "--status-fd", "1", *words, *map(str, operands)]
        done = process.run(command, Deadline.after(_PATIENCE), limits=_LIMITS, check=False)
        signer = _signer(done, source)
        # Around what was signed there may be more, which nobody has signed.
        return Checked(text if signature else output.read_bytes(), signer)


def _unchecked(text: bytes, why: str, keyrings: Sequence[str]) -> Checked:
    packages = [
        package
        for keyring in keyrings
        for beginning, package in _PACKAGES
        if keyring.startswith(beginning)
    ]
    remedy = f"Install the package {' or '.join(dict.fromkeys(packages))}." if packages else ""
    return Checked(text, why=why, remedy=remedy)


def _signer(done: process.Completed, source: str) -> str:
    """Return the key of a good signature. Raises RefusedError when there is none."""
    said = [line.split()[1:] for line in done.text.splitlines() if line.startswith("[GNUPG:] ")]
    found = {words[0]: " ".join(words[1:]) for words in said if words}
    if "BADSIG" in found:
        raise errors.RefusedError(
            f"The signature of '{source}' is bad: somebody changed the file after it was signed "
            f"by '{found['BADSIG']}'.",
            hint="Do not use this download. Try another network, and tell the publisher.",
            details=done.complaint,
        )
    if "GOODSIG" in found and "VALIDSIG" in found:
        return found["GOODSIG"]
    for word, what in (("EXPKEYSIG", "has expired"), ("REVKEYSIG", "was revoked")):
        if word in found:
            raise errors.RefusedError(
                f"The key '{found[word]}' that signed '{source}' {what}.",
                hint="Update the package that the keyring comes with.",
                details=done.complaint,
            )
    key = found.get("NO_PUBKEY") or found.get("ERRSIG", "").split(" ")[0]
    if key:
        raise errors.RefusedError(
            f"'{source}' is signed with the key '{key}', which the publisher's keyring on this "
            "host does not have.",
            hint="Update the package that the keyring comes with.",
            details=done.complaint,
        )
    raise errors.RefusedError(f"'{source}' has no signature.", details=done.complaint)


def _readable(keyrings: Sequence[str], directory: pathlib.Path) -> Iterator[str]:
    """Yield keyrings in the form that gpgv reads, which is not the one with letters alone."""
    for number, keyring in enumerate(keyrings):
        with contextlib.suppress(OSError):
            with open(keyring, "rb") as stream:
                content = stream.read(_MOST_KEYRING)
            blocks = _ARMOUR.findall(content)
            if not blocks:
                yield os.path.abspath(keyring)
                continue
            place = directory / f"keyring-{number}.gpg"
            place.write_bytes(b"".join(_binary(block) for block in blocks))
            yield str(place)


def _binary(block: bytes) -> bytes:
    """Return what an armoured block holds, without its checksum (RFC 4880, section 6)."""
    lines = [line for line in block.split() if not line.startswith(b"=")]
    try:
        return base64.b64decode(b"".join(lines), validate=True)
    except binascii.Error:
        return b""
