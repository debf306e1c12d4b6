"""What an operator lets the jobs of a CI system ask for. Pure, but for a look into a directory."""

from __future__ import annotations

import dataclasses
import fnmatch
import json
import os
import pathlib
import re

from vmctl import errors

_SPEC_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


class NotOfferedError(errors.UsageError):
    """The job asked for what the operator does not offer; trying again does not help."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """What a machine gets unless its spec says so itself; empty and 0 mean vmctl's own defaults."""

    mode: str = ""
    cpus: int = 0
    memory: str = ""
    disk: str = ""
    nested: bool = False

    def lines(self) -> list[str]:
        """Return the lines of a spec that say this."""
        given = {
            "mode": self.mode,
            "cpus": self.cpus,
            "memory": self.memory,
            "disk": self.disk,
            "nested": self.nested,
        }
        return [f"{key}: {json.dumps(value)}" for key, value in given.items() if value]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """What a machine is made from: a spec of the operator's, or an image; or it is a pool's."""

    image: str = ""
    spec: str = ""
    pool: str = ""

    def lines(self, sizes: Sizes) -> list[str]:
        """Return the lines of a spec that say this; a spec of the operator's has its own sizes."""
        if self.spec:
            return [f"base: {json.dumps(self.spec)}"]
        return [f"image: {{name: {json.dumps(self.image)}}}", *sizes.lines()]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """What jobs may name as their image.

    `default` stands for a job that names none. `pools` have warm machines, `specs` is a directory
    whose `NAME.yaml` can be asked for as NAME, `images` are patterns of image names (`debian-*`).
    """

    default: str = ""
    pools: tuple[str, ...] = ()
    images: tuple[str, ...] = ()
    specs: str = ""

    def choose(self, asked: str) -> Choice:
        """Return what `asked` stands for; raises NotOfferedError."""
        name = asked or self.default
        if not name:
            raise NotOfferedError(
                "The job names no image, and the operator has set no default.",
                hint=f"Name one in the job: {self._offered() or 'none is offered'}",
            )
        if name in self.pools:
            return Choice(pool=name)
        spec = self._spec(name)
        if spec:
            return Choice(spec=spec)
        patterns = (*self.images, *([self.default] if self.default else []))
        if any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns):
            return Choice(image=name)
        raise NotOfferedError(
            f"The image '{name}' is not offered here.",
            hint=f"Ask for one of these: {self._offered() or 'none is offered'}",
        )

    def _spec(self, name: str) -> str:
        if not self.specs or not _SPEC_NAME.fullmatch(name):
            return ""
        path = pathlib.Path(os.path.abspath(self.specs)) / f"{name}.yaml"
        return os.fspath(path) if path.is_file() else ""

    def _offered(self) -> str:
        found = list(self.pools)
        if self.specs and os.path.isdir(self.specs):
            found += sorted(path.stem for path in pathlib.Path(self.specs).glob("*.yaml"))
        return ", ".join(dict.fromkeys([*found, *filter(None, [self.default]), *self.images]))
