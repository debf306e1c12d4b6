"""What a builder of images is told, and what it hands over."""

from __future__ import annotations

import hashlib
import json
import pathlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from vmctl.deadline import Deadline
from vmctl.store.layout import Layout

Progress = Callable[[str, int, int], None]
"""Told what is being done, and how many units of how many are done (0 of 0: nobody knows)."""


@dataclass(frozen=True, slots=True)
class Job:
    """One build: what for, and how long it may take.

    `known` are the inputs of the image that is there already; empty when there is none, or when it
    shall be built in any case. `renew` says that what is there shall be brought up to date, and not
    only that something must be there; `consent` that content may change that nobody has signed.
    """

    layout: Layout
    name: str
    deadline: Deadline
    progress: Progress
    known: str = ""
    renew: bool = False
    consent: bool = False

    def inputs(self, what: Any) -> str:
        """Return the digest of all that goes into the image, `what` being what JSON can write.

        The recipe is compared apart and need not be in it.
        """
        return hashlib.sha256(json.dumps([self.name, what], sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Product:
    """A finished image in the builder's directory.

    `files` says which file there becomes which of the image (`catalog.KERNEL`, `disk_name(…)`, …):
    they are moved, not copied. `facts` go into image.json, above what the recipe promises:
    kernel_release, packages, disk_format and size of a disk, … `inputs` is kept for the next time.
    """

    files: Mapping[str, pathlib.Path]
    inputs: str
    facts: Mapping[str, Any] = field(default_factory=dict)


Builder = Callable[[Job, pathlib.Path], Product | None]
"""Makes an image in an empty private directory, which is removed afterwards.

Returns None when `job.known` equals the inputs it finds: what is there is up to date.
"""
