"""Names of the packages that images are built from, for each distribution."""

from __future__ import annotations

import pathlib
import platform
import re
from dataclasses import dataclass

from vmctl import errors

_TOOLS = ("busybox-static", "dropbear-bin", "qemu-guest-agent", "e2fsprogs")


@dataclass(frozen=True, slots=True)
class Names:
    """Package names of one distribution; `kernel` is the one that follows updates.

    `image` matches the packages that hold the kernel itself and, where apart, its modules.
    """

    kernel: str
    image: re.Pattern[str]
    tools: tuple[str, ...] = _TOOLS


_DEBIAN = Names("linux-image-amd64", re.compile(r"linux-image-\d[\da-z.+~]*(-\d+)?-amd64"))
_UBUNTU = Names("linux-image-generic", re.compile(r"linux-(image|modules)-\d[\d.]*-\d+-generic"))
"""From Ubuntu's package lists; not run."""

_KNOWN = {"debian": _DEBIAN, "ubuntu": _UBUNTU}


def names(os_release: pathlib.Path = pathlib.Path("/etc/os-release")) -> Names:
    """Return the package names of this host. Raises HostError on a distribution without apt."""
    if platform.machine() != "x86_64":
        raise errors.HostError(
            f"The tiny image is built for x86-64 only; this host is '{platform.machine()}'."
        )
    identity = _identity(os_release)
    for word in (identity.get("ID", ""), *identity.get("ID_LIKE", "").split()):
        if word in _KNOWN:
            return _KNOWN[word]
    raise errors.HostError(
        "The tiny image is built from Debian's or Ubuntu's packages, and this host runs "
        f"'{identity.get('PRETTY_NAME', 'something else')}'.",
        hint="Build it on Debian 12 (vmctl image build tiny) and copy the store's images/ and "
        "image-names/ directories over.",
    )


def require_suite(suite: str, os_release: pathlib.Path = pathlib.Path("/etc/os-release")) -> None:
    """Raise HostError unless this host runs the release of Debian that `suite` names."""
    identity = _identity(os_release)
    if identity.get("ID") != "debian" or identity.get("VERSION_CODENAME") != suite:
        raise errors.HostError(
            f"This image is built from the packages of Debian's '{suite}', and this host runs "
            f"'{identity.get('PRETTY_NAME', 'something else')}'.",
            hint="Use the image that Debian publishes (image: debian-12), or build this one on "
            "Debian 12 and copy it: vmctl image import",
        )


def _identity(os_release: pathlib.Path) -> dict[str, str]:
    try:
        text = os_release.read_text("utf-8", "replace")
    except OSError:
        return {}
    pairs = (line.partition("=") for line in text.splitlines() if "=" in line)
    return {key: value.strip().strip("\"'") for key, _, value in pairs}
