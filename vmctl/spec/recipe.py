"""The keys of an image recipe, `images/NAME.yaml`: how an image is made and what it can do."""

from __future__ import annotations

import enum
import os
from typing import ClassVar

from pydantic import Field

from vmctl.spec import scalars, source, validation
from vmctl.spec.model import Strict


class Driver(enum.StrEnum):
    """Kinds of devices that a guest's kernel may be able to drive."""

    VIRTIO = "virtio"
    AHCI = "ahci"
    IDE = "ide"
    E1000 = "e1000"
    E1000E = "e1000e"


class RecipeReady(Strict):
    """How the image tells on its console that it is ready."""

    example: ClassVar[str] = "{pattern: 'login:', timeout: 1m}"

    pattern: scalars.Pattern = Field(description="Regular expression for a line of the console.")
    timeout: scalars.Duration = Field(
        default=60.0, description="How long it takes at most, under KVM."
    )


class Recipe(Strict):
    """How one image is made, and what it can do."""

    example: ClassVar[str] = "{name: tiny, builder: tiny, drivers: [virtio]}"
    later: ClassVar[frozenset[str]] = frozenset({"url", "sha256", "kind"})

    name: scalars.ImageName = Field(description="Name, as in a spec's `image`.")
    description: scalars.Description = Field(default="", description="One line for people.")
    builder: scalars.Label = Field(description="What builds it.")
    drivers: tuple[Driver, ...] = Field(max_length=8, description="What its kernel can drive.")
    ready: RecipeReady | None = Field(default=None, description="How it tells that it is ready.")
    memory: scalars.Memory | None = Field(default=None, description="The least that it needs.")
    agent: scalars.Truth = Field(
        default=False, description="Whether QEMU's guest agent runs in it."
    )
    login: scalars.Description = Field(default="", description="How to log in, for people.")
    cmdline: scalars.Description = Field(
        default="", description="Kernel command line, for a direct boot."
    )


def load(path: str | os.PathLike[str]) -> Recipe:
    """Return the recipe in a file. Raises SpecError, NotFoundError and UsageError."""
    return validation.validate(source.read(path), Recipe)
