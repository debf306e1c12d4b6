"""The keys of an image recipe, `images/NAME.yaml`: how an image is made and what it can do."""

from __future__ import annotations

import enum
import os
from typing import ClassVar

from pydantic import Field

from vmctl.spec import scalars, source, validation
from vmctl.spec.choices import Boot
from vmctl.spec.strict import Strict


class Driver(enum.StrEnum):
    """Kinds of devices that a guest's kernel may be able to drive."""

    VIRTIO = "virtio"
    AHCI = "ahci"
    IDE = "ide"
    E1000 = "e1000"
    E1000E = "e1000e"


class Builder(enum.StrEnum):
    """What makes an image."""

    TINY = "tiny"
    DEBIAN = "debian"
    LAB = "lab"
    PULL = "pull"


class RecipeFormat(enum.StrEnum):
    """Format of a published disk image."""

    QCOW2 = "qcow2"
    RAW = "raw"


class RecipeWhen(enum.StrEnum):
    """What makes a machine with the image count as ready."""

    CONSOLE = "console"
    SSH = "ssh"
    CLOUD_INIT = "cloud-init"
    AGENT = "agent"
    RUNNING = "running"


class ChecksumKind(enum.StrEnum):
    """Which digest a publisher's checksum file holds."""

    SHA256 = "sha256"
    SHA512 = "sha512"


class RecipeReady(Strict):
    """How it is known that a machine with the image is ready."""

    example: ClassVar[str] = "{pattern: 'login:', timeout: 1m}"

    when: RecipeWhen | None = Field(
        default=None, description="What is awaited; with a `pattern`, the console."
    )
    pattern: scalars.Pattern = Field(
        default="", description="Regular expression for a line of the console."
    )
    timeout: scalars.Duration = Field(
        default=60.0, description="How long it takes at most, under KVM."
    )


class Recipe(Strict):
    """How one image is made, and what it can do."""

    example: ClassVar[str] = "{name: tiny, builder: tiny, drivers: [virtio]}"

    name: scalars.ImageName = Field(description="Name, as in a spec's `image`.")
    description: scalars.Description = Field(default="", description="One line for people.")
    builder: Builder = Field(description="What makes it.")
    url: scalars.Url = Field(default="", description="Where the publisher offers it.")
    checksums: scalars.Url = Field(
        default="", description="Where the publisher's file of checksums is."
    )
    checksum_kind: ChecksumKind = Field(
        default=ChecksumKind.SHA512, description="Which digest that file holds."
    )
    signature: scalars.Url = Field(
        default="", description="Where the signature of the checksums is; empty: not signed."
    )
    keyrings: tuple[scalars.Description, ...] = Field(
        default=(), max_length=8, description="Keyrings of the host that may verify the signature."
    )
    format: RecipeFormat = Field(
        default=RecipeFormat.QCOW2, description="Format of the published disk image."
    )
    cloud_init: scalars.Truth = Field(
        default=False, description="Whether it reads a cloud-init seed."
    )
    user: scalars.Description = Field(
        default="", description="Who logs in, unless the spec says otherwise."
    )
    boot: Boot | None = Field(
        default=None,
        description="What starts it: its `disk`, or QEMU its `kernel`; default: its disk.",
    )
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
