"""Remembers what was pulled from an address, so that a change does not go unnoticed."""

from __future__ import annotations

import dataclasses
import hashlib

from vmctl import errors
from vmctl.store import files
from vmctl.store.layout import Layout


@dataclasses.dataclass(frozen=True, slots=True)
class Pin:
    """What an address has led to: the sha256 of its content, in hexadecimal digits.

    `published` is the digest that the publisher's checksum file had, with its kind; `signer` who
    signed that file, where it was checked; else `why` says why it was not, `remedy` what to do.
    """

    url: str
    sha256: str
    published: str = ""
    signer: str = ""
    why: str = ""
    remedy: str = ""


def read(layout: Layout, url: str) -> Pin | None:
    """Return what is remembered of an address."""
    data = files.read_json(layout.image_pin(_key(url)))
    try:
        pin = Pin(**data) if data is not None else None
    except TypeError:
        return None
    return pin if pin is not None and pin.url == url else None


def write(layout: Layout, pin: Pin) -> None:
    """Remember it. Raises HostError."""
    path = layout.image_pin(_key(pin.url))
    files.make_directory(path.parent)
    files.write_json(path, dataclasses.asdict(pin), files.SHARED)


def _key(url: str) -> str:
    return hashlib.sha256(url.encode()).hexdigest()


def changed(url: str, before: str, now: str, again: str) -> errors.RefusedError:
    """Return the refusal of an address that leads to something else than it did.

    `again` is the command that accepts the change.
    """
    return errors.RefusedError(
        f"'{url}' has changed: it was '{before}' when it was pulled first, and is '{now}' now. "
        "No signature says that the publisher did this.",
        hint=f"If the publisher says that there is a new version: {again}",
    )
