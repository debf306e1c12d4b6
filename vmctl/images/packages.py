"""Finds, fetches and unpacks packages of the host's distribution, without installing any."""

from __future__ import annotations

import pathlib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from vmctl import errors, process
from vmctl.deadline import Deadline
from vmctl.images import cache, distribution
from vmctl.images.job import Progress
from vmctl.store import files

_LARGE = 16 << 20
"""Packages from this size (bytes) are fetched one by one, so that progress can be told."""


@dataclass(frozen=True, slots=True)
class Package:
    """One package that apt would install; `size` in bytes, `sha256` in hex."""

    name: str
    version: str
    section: str
    size: int
    sha256: str
    depends: tuple[str, ...]
    record: str = field(default="", repr=False, compare=False)
    """What the package lists say of it, as they say it."""

    @property
    def holds_libraries(self) -> bool:
        """True for a package of shared libraries."""
        return self.section.rsplit("/", 1)[-1] == "libs"


class Apt:
    """Apt as the host is configured, with package lists of our own where the host's do not serve.

    Ours lie in the cache directory: an ordinary user cannot renew the host's.
    """

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._state = cache.directory() / "apt"
        self._own_lists = False

    def resolve(self, choose: Choice, deadline: Deadline) -> list[Package]:
        """Return the packages that are wanted, sorted by name. Raises HostError."""
        self._progress("Looking up packages", 0, 0)
        try:
            return choose(self, deadline)
        except errors.HostError:
            self._renew_lists(deadline)
            return choose(self, deadline)

    def fetch(
        self,
        wanted: Sequence[Package],
        choose: Choice,
        scratch: pathlib.Path,
        deadline: Deadline,
    ) -> list[Package]:
        """Put all `wanted` into the cache, but what is there already, and return what is there.

        Where the mirror no longer has what the host's package lists name, newer packages take
        their place. Raises HostError where a package cannot be had, RefusedError for one that is
        not what the signed package lists say.
        """
        try:
            self._fetch(wanted, scratch, deadline)
        except errors.HostError:
            if self._own_lists:
                raise
            self._renew_lists(deadline)
            wanted = choose(self, deadline)
            self._fetch(wanted, scratch, deadline)
        return list(wanted)

    def _fetch(self, wanted: Sequence[Package], scratch: pathlib.Path, deadline: Deadline) -> None:
        missing = [package for package in wanted if cache.find_package(package.sha256) is None]
        total = sum(package.size for package in missing)
        done = 0
        small = [package for package in missing if package.size < _LARGE]
        large = [[package] for package in missing if package.size >= _LARGE]
        for group in filter(None, (small, *large)):
            self._progress("Fetching packages", done, total)
            self._download(group, scratch, deadline)
            done += sum(package.size for package in group)
        self._progress("Fetching packages", total, total)

    def show(self, names: Sequence[str], deadline: Deadline) -> dict[str, Package]:
        """Return what the package lists say of packages, NAME or NAME=VERSION, by name."""
        done = self.run(["apt-cache", "show", "--no-all-versions", *names], deadline)
        return parse_records(done.text)

    def _download(
        self, group: Sequence[Package], scratch: pathlib.Path, deadline: Deadline
    ) -> None:
        words = [f"{package.name}={package.version}" for package in group]
        done = self.run(["apt-get", "--quiet", "download", *words], deadline, cwd=scratch)
        for package in group:
            # What was fetched before a failure is worth keeping.
            found = next(iter(scratch.glob(f"{package.name}_*.deb")), None)
            if found is not None:
                _keep(found, package)
            elif done.status != 0:
                raise errors.HostError(
                    f"The package '{package.name}' ({package.version}) cannot be fetched.",
                    hint="Check the network and the sources in /etc/apt. What is fetched once is "
                    f"kept in {cache.directory()}.",
                    details=done.complaint,
                )

    def _renew_lists(self, deadline: Deadline) -> None:
        self._progress("Fetching package lists", 0, 0)
        for directory in ("lists/partial", "archives/partial"):
            files.make_directory(self._state / directory, 0o755)
        self._own_lists = True
        self.run(["apt-get", "--quiet", "update"], deadline)

    def run(
        self, argv: Sequence[str], deadline: Deadline, cwd: pathlib.Path | None = None
    ) -> process.Completed:
        """Run one of apt's programs on the lists in use; its status is for the caller to judge."""
        own = (
            f"Dir::State::Lists={self._state / 'lists'}",
            f"Dir::Cache={self._state}",
            "Dir::Cache::pkgcache=",
            "Dir::Cache::srcpkgcache=",
        )
        options = [word for option in own for word in ("-o", option)] if self._own_lists else []
        return process.run(
            [argv[0], *options, *argv[1:]], deadline, cwd=cwd, check=False, interruptible=True
        )


Choice = Callable[[Apt, Deadline], list[Package]]
"""Says which packages are wanted, by the package lists in use; raises HostError."""


def for_files(names: distribution.Names) -> Choice:
    """Return the choice of packages to take files from: a kernel, programs and their libraries."""

    def choose(apt: Apt, deadline: Deadline) -> list[Package]:
        related = apt.run(
            ["apt-cache", "depends", "--recurse", "--important", *names.tools], deadline
        )
        seeds = (names.kernel, *names.tools)
        candidates = {line for line in related.text.splitlines() if re.match(r"[a-z0-9]", line)}
        known = apt.show([*seeds, *sorted(candidates - set(seeds))], deadline)
        refuse_missing(seeds, known)
        kernels = _kernel_packages(apt, known[names.kernel], names, deadline)
        libraries = _libraries(known, names.tools)
        chosen = {known[name] for name in names.tools} | set(kernels) | set(libraries)
        return sorted(chosen, key=lambda package: package.name)

    return choose


def refuse_missing(names: Iterable[str], known: Mapping[str, Package]) -> None:
    """Raise HostError for the first name that the package lists do not have."""
    missing = [name for name in names if name not in known]
    if missing:
        raise errors.HostError(
            f"The distribution's package lists do not have '{missing[0]}'.",
            hint="Check the sources in /etc/apt, then run: apt-get update",
        )


def _kernel_packages(
    apt: Apt, newest: Package, names: distribution.Names, deadline: Deadline
) -> list[Package]:
    found: dict[str, Package] = {}
    waiting = [newest]
    while waiting:
        wanted = [
            name
            for package in waiting
            for name in package.depends
            if names.image.fullmatch(name) and name not in found
        ]
        if not wanted:
            break
        known = apt.show(wanted, deadline)
        found.update(known)
        waiting = list(known.values())
    if not found:
        raise errors.HostError(f"The package '{names.kernel}' leads to no kernel.")
    return list(found.values())


def _keep(download: pathlib.Path, package: Package) -> None:
    actual = cache.sha256_of(download)
    if actual != package.sha256:
        download.unlink()
        raise errors.RefusedError(
            f"The package '{package.name}' is not what the package lists say: its sha256 is "
            f"'{actual}' and should be '{package.sha256}'.",
            hint="Renew the package lists: apt-get update",
        )
    cache.keep_package(download, package.sha256)


def parse_records(text: str) -> dict[str, Package]:
    """Return the packages that `apt-cache show` printed, the first record of each name."""
    found: dict[str, Package] = {}
    for block in text.split("\n\n"):
        fields = dict(re.findall(r"^([A-Za-z0-9-]+): (.*)$", block, re.MULTILINE))
        name = fields.get("Package", "")
        # A package that is installed but no longer offered has no checksum: it cannot be fetched.
        if name and name not in found and fields.get("SHA256"):
            found[name] = Package(
                name=name,
                version=fields.get("Version", ""),
                section=fields.get("Section", ""),
                size=int(fields.get("Size", "0")),
                sha256=fields["SHA256"],
                depends=_dependencies(fields),
                record=block,
            )
    return found


def _dependencies(fields: Mapping[str, str]) -> tuple[str, ...]:
    """Return the names of dependencies, all alternatives, without versions and architectures."""
    text = ",".join(fields.get(key, "") for key in ("Pre-Depends", "Depends"))
    words = (word.strip() for word in re.split(r"[,|]", text))
    return tuple(re.split(r"[ :(]", word, maxsplit=1)[0] for word in words if word)


def _libraries(known: Mapping[str, Package], tools: Iterable[str]) -> list[Package]:
    """Return the library packages that `tools` need, by way of library packages alone.

    The rest of what packages depend on (Perl, an init system) serves their installation.
    """
    found: dict[str, Package] = {}
    waiting = [name for tool in tools for name in known[tool].depends]
    while waiting:
        package = known.get(waiting.pop())
        if package is not None and package.holds_libraries and package.name not in found:
            found[package.name] = package
            waiting += package.depends
    return list(found.values())


def unpack(wanted: Sequence[Package], target: pathlib.Path, deadline: Deadline) -> None:
    """Unpack cached packages into the directory `target`. Raises ProgramError, HostError."""
    for package in wanted:
        archive = cache.find_package(package.sha256)
        if archive is None:
            raise errors.HostError(
                f"The package '{package.name}' vanished from '{cache.directory()}'.",
                hint="Run the same command again.",
            )
        process.run(["dpkg-deb", "--extract", archive, target], deadline, interruptible=True)
