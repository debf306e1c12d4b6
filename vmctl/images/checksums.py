"""Reads the files in which publishers say what the digests of their images are.

Three forms are in use: GNU's (`sha512sum`), BSD's (`SHA256 (name) = …`, Fedora), and a file that
holds one digest and nothing else (Alpine).
"""

from __future__ import annotations

import dataclasses
import enum
import hashlib
import pathlib
import re
from collections.abc import Callable, Iterable

from vmctl import errors

_CHUNK = 1 << 20
_GNU = re.compile(r"(\\?)([0-9A-Fa-f]{32,128})(?: [ *]|\t)(.+)")
_BSD = re.compile(r"([A-Za-z0-9-]{3,20}) ?\((.+)\) ?= ?([0-9A-Fa-f]{32,128})")
_ESCAPE = re.compile(r"\\(.)")
_LONGEST_LINE = 4096


class Kind(enum.StrEnum):
    """Which digest it is."""

    SHA256 = "sha256"
    SHA512 = "sha512"

    @property
    def digits(self) -> int:
        """How many hexadecimal digits it has."""
        return 64 if self is Kind.SHA256 else 128


@dataclasses.dataclass(frozen=True, slots=True)
class Digest:
    """A digest of a file, in hexadecimal digits."""

    kind: Kind
    value: str

    def __str__(self) -> str:
        return f"{self.kind}:{self.value}"


def expected(text: bytes, name: str, kind: Kind, source: str) -> Digest:
    """Return the one digest that a checksum file has for the file `name`.

    `source` is where the file is from, for messages. Raises RefusedError when there is none, or
    more than one.
    """
    lines = text.decode("utf-8", "replace").splitlines()
    found = set(_of(lines, name, kind)) or set(_alone(lines, kind))
    if len(found) == 1:
        return Digest(kind, found.pop())
    if not found:
        page = text[:64].lstrip().lower().startswith((b"<html", b"<!doctype"))
        what = "is a web page, no file of checksums" if page else f"has no {kind} of '{name}'"
        raise errors.RefusedError(
            f"'{source}' {what}.",
            hint="The publisher may have moved or renamed the image: look where it is now.",
        )
    raise errors.RefusedError(
        f"'{source}' has {len(found)} different {kind} digests of '{name}'.",
        hint="Try again later: the publisher may be at work on the file.",
    )


def _of(lines: Iterable[str], name: str, kind: Kind) -> Iterable[str]:
    """Yield the digests of a file, wherever in the list they stand."""
    for line in lines:
        if len(line) > _LONGEST_LINE:
            continue
        if gnu := _GNU.fullmatch(line):
            named = _ESCAPE.sub(_unescaped, gnu[3]) if gnu[1] else gnu[3]
            value = gnu[2]
        elif bsd := _BSD.fullmatch(line.rstrip()):
            named, value = bsd[2], bsd[3]
            if bsd[1].lower().replace("-", "") != kind:
                continue
        else:
            continue
        if named.removeprefix("./") == name and len(value) == kind.digits:
            yield value.lower()


def _unescaped(match: re.Match[str]) -> str:
    return {"n": "\n", "r": "\r"}.get(match[1], match[1])


def _alone(lines: Iterable[str], kind: Kind) -> Iterable[str]:
    """Yield the digest of a file that holds nothing else."""
    words = [word for line in lines for word in line.split()]
    if len(words) == 1 and re.fullmatch(rf"[0-9A-Fa-f]{{{kind.digits}}}", words[0]):
        yield words[0].lower()


def measure(
    path: pathlib.Path, kinds: Iterable[Kind], told: Callable[[int], None]
) -> dict[Kind, Digest]:
    """Return digests of a file, read once; `told` is given how many bytes were read."""
    sums = {kind: hashlib.new(kind.value) for kind in kinds}
    done = 0
    with path.open("rb") as stream:
        while content := stream.read(_CHUNK):
            for each in sums.values():
                each.update(content)
            done += len(content)
            told(done)
    return {kind: Digest(kind, each.hexdigest()) for kind, each in sums.items()}
