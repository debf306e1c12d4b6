"""Installs a Debian system into a directory, from packages in the cache, by mmdebstrap.

mmdebstrap sees nothing but a repository of exactly the packages that were chosen and checked: it
needs no network, and nothing of the host's apt settings gets near the new system.
"""

from __future__ import annotations

import os
import pathlib
import re
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from vmctl import errors, process
from vmctl.deadline import Deadline
from vmctl.images import cache, namespace, packages
from vmctl.images.packages import Package

_INSTALL = re.compile(r"^Inst (\S+) .*?\((\S+) ", re.MULTILINE)
_TRANSLATIONS = (
    "path-exclude=/usr/share/man/*",
    "path-exclude=/usr/share/doc/*",
    "path-include=/usr/share/doc/*/copyright",
    "path-exclude=/usr/share/locale/*",
    # The directory is thrown away when anything goes wrong: no need to wait for the disk.
    "force-unsafe-io",
)
_HOOKS = "/usr/share/mmdebstrap/hooks/merged-usr"


def for_system(names: Sequence[str]) -> packages.Choice:
    """Return the choice of a whole system: what apt would install on an empty disk for `names`."""

    def choose(apt: packages.Apt, deadline: Deadline) -> list[Package]:
        done = apt.run(
            [
                *("apt-get", "--simulate", "-o", "Dir::State::status=/dev/null"),
                *("-o", "APT::Install-Recommends=false", "-o", "Debug::NoLocking=1"),
                *("-o", "APT::Install-Suggests=false"),
                *("install", "?essential", *names),
            ],
            deadline,
        )
        versions = dict(_INSTALL.findall(done.text))
        if done.status != 0 or not versions:
            raise errors.HostError(
                "The distribution's package lists do not lead to a whole system.",
                hint="Check the sources in /etc/apt, then run: apt-get update",
                details=done.complaint,
            )
        known = apt.show([f"{name}={version}" for name, version in versions.items()], deadline)
        packages.refuse_missing(versions, known)
        return sorted(known.values(), key=lambda package: package.name)

    return choose


@dataclass(frozen=True, slots=True)
class Hooks:
    """Shell commands that run with the directory as their first argument.

    `before` runs when there is nothing yet but the directory, `after` when all is installed.
    """

    before: str
    after: str


def install(
    wanted: Sequence[Package],
    target: pathlib.Path,
    suite: str,
    hooks: Hooks,
    deadline: Deadline,
) -> None:
    """Install `wanted`, all of them in the cache, into the new directory `target`.

    Raises HostError, ProgramError with the end of mmdebstrap's report, WaitTimeoutError.
    """
    repository = _repository(wanted, target.with_name("repository"))
    environment = {"SOURCE_DATE_EPOCH": "1", "TMPDIR": os.fspath(target.parent)}
    command: list[str | os.PathLike[str]] = [
        *("mmdebstrap", "--mode=root", "--format=directory", "--variant=custom"),
        f"--include={','.join(package.name for package in wanted)}",
        f"--hook-dir={_HOOKS}",
        # The user _apt could not enter the private directory that all of this lies in.
        '--aptopt=APT::Sandbox::User "root"',
        *(f"--dpkgopt={option}" for option in _TRANSLATIONS),
        f"--setup-hook={hooks.before}",
        f"--customize-hook={hooks.after}",
        suite,
        target,
        f"deb [trusted=yes] copy://{repository} ./",
    ]
    try:
        namespace.run(command, deadline, env=environment)
    except errors.ProgramError as problem:
        raise errors.ProgramError(
            "mmdebstrap could not install the packages of the image.", details=problem.details
        ) from None
    # Device nodes that only building needed; in the guest the kernel makes its own.
    namespace.run(["find", target / "dev", "-mindepth", "1", "-delete"], deadline)
    shutil.rmtree(repository)


def _repository(wanted: Sequence[Package], directory: pathlib.Path) -> pathlib.Path:
    """Make a package repository of files in the cache; `trusted`, because they were checked."""
    directory.mkdir()
    records = []
    for package in wanted:
        archive = cache.find_package(package.sha256)
        if archive is None:
            raise errors.HostError(
                f"The package '{package.name}' vanished from '{cache.directory()}'.",
                hint="Run the same command again.",
            )
        (directory / archive.name).symlink_to(archive)
        records.append(re.sub(r"(?m)^Filename: .*$", f"Filename: {archive.name}", package.record))
    (directory / "Packages").write_text("\n\n".join(records) + "\n", "utf-8")
    return directory


def require_programs(programs: Iterable[tuple[str, str]]) -> None:
    """Raise HostError when programs are missing; each is named with its Debian package."""
    missing = [(name, package) for name, package in programs if process.find(name) is None]
    if missing:
        names = " ".join(dict.fromkeys(package for _, package in missing))
        raise errors.HostError(
            f"Building this image needs the program '{missing[0][0]}', which is not installed.",
            hint=f"Install what is missing: sudo apt install {names}",
        )
