"""Pulls published disk images: fetched, compared with what their publisher says, and admitted.

What proves that an image is the right one is, in this order: the publisher's signature over a file
of checksums; that file alone, over https; the digest that a spec gives; and, where there is nothing
else, that it is what it was when it was pulled first.
"""

from __future__ import annotations

import dataclasses
import functools
import os
import pathlib
import shutil
import urllib.parse
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from vmctl import errors
from vmctl.deadline import Deadline
from vmctl.images import (
    catalog,
    checksums,
    drafts,
    drivers,
    gate,
    pins,
    recipes,
    shelf,
    signatures,
)
from vmctl.images.checksums import Digest, Kind
from vmctl.images.job import Job, Product, Progress
from vmctl.images.qcow2 import ImageInfo
from vmctl.machine.model import DiskFormat, Image
from vmctl.store import files, locks
from vmctl.store.layout import Layout

if TYPE_CHECKING:
    from vmctl.images import download
    from vmctl.spec.recipe import Recipe

_ADMISSION_SECONDS = 180.0
_STORE_SECONDS = 600.0

_Judge = Callable[[Mapping[Kind, Digest]], None]
"""Raises RefusedError for a content that is not the right one."""


@dataclasses.dataclass(frozen=True, slots=True)
class _Said:
    """What the publisher says of an image, and who signed that."""

    digest: Digest | None
    checked: signatures.Checked

    @property
    def signed(self) -> bool:
        """True where a signature was found good."""
        return bool(self.checked.signer)

    def pin(self, url: str, sha256: str) -> pins.Pin:
        """Return what is to be remembered of a content that was pulled."""
        return pins.Pin(
            url=url,
            sha256=sha256,
            published=str(self.digest or ""),
            signer=self.checked.signer,
            why=self.checked.why,
            remedy=self.checked.remedy,
        )


def make(job: Job, directory: pathlib.Path) -> Product | None:
    """Pull the image of a recipe into an empty directory; the builder of `builder: pull`.

    Raises RefusedError, NotFoundError, HostError, UsageError, WaitTimeoutError.
    """
    recipe = recipes.read(job.name)
    if not recipe.url:
        raise errors.UsageError(f"The recipe of image '{job.name}' has no url to pull from.")
    pin = pins.read(job.layout, recipe.url)
    place = directory / catalog.disk_name(DiskFormat(recipe.format.value))
    if pin is not None and not job.renew and _taken(job, pin, place):
        return _product(job, recipe, pin, place)
    said = _published(recipe, job.progress)
    if pin is not None and said.digest is not None:
        if pin.published == str(said.digest):
            pin = said.pin(recipe.url, pin.sha256)
            pins.write(job.layout, pin)
            if job.known and job.known == _inputs(job, recipe, pin):
                return None
            if _taken(job, pin, place):
                return _product(job, recipe, pin, place)
        elif pin.published.startswith(f"{said.digest.kind}:"):
            _refuse_change(job, said, pin.published, str(said.digest))
    pin = said.pin(recipe.url, _pulled(job, recipe, said, pin, place))
    if job.known and job.known == _inputs(job, recipe, pin):
        return None
    pins.write(job.layout, pin)
    return _product(job, recipe, pin, place)


def _taken(job: Job, pin: pins.Pin, place: pathlib.Path) -> bool:
    """Take the content from the store where it is there: a recipe's other keys may have changed."""
    there = shelf.with_content(job.layout, pin.sha256)
    if there is None:
        return False
    job.progress("taking what is in the store", 0, 0)
    try:
        os.link(there, place)
    except OSError:
        shutil.copyfile(there, place)
    return True


def _inputs(job: Job, recipe: Recipe, pin: pins.Pin) -> str:
    return job.inputs([recipe.url, pin.published or pin.sha256])


def _product(job: Job, recipe: Recipe, pin: pins.Pin, place: pathlib.Path) -> Product:
    admitted = _admitted(place, DiskFormat(recipe.format.value), recipe.url)
    return Product(
        files={place.name: place},
        inputs=_inputs(job, recipe, pin),
        facts={
            "disk_format": recipe.format.value,
            "size": admitted.virtual_size,
            "source": recipe.url,
            "published": pin.published,
        },
    )


def _refuse_change(job: Job, said: _Said, before: str, now: str) -> None:
    """Refuse a change that neither the publisher has signed nor the user has agreed to."""
    if before != now and not said.signed and not job.consent:
        url = recipes.read(job.name).url
        raise pins.changed(url, before, now, f"vmctl image pull --renew {job.name}")


def _published(recipe: Recipe, progress: Progress) -> _Said:
    """Fetch and check what the publisher says."""
    from vmctl.images import download

    if not recipe.checksums:
        return _Said(None, signatures.Checked(b"", why="its publisher offers no checksums"))
    signed = bool(recipe.keyrings)
    text = download.text(recipe.checksums, progress, secure=not signed)
    signature = b""
    if recipe.signature:
        signature = download.text(recipe.signature, progress, secure=not signed)
    checked = signatures.Checked(text, why="its publisher signs no checksums")
    if signed:
        progress("checking the signature", 0, 0)
        checked = signatures.check(text, signature, recipe.keyrings, recipe.checksums)
    addresses = (recipe.url, recipe.checksums, recipe.signature)
    if not checked.signer and any(each.startswith("http:") for each in addresses):
        raise errors.HostError(
            f"The image '{recipe.name}' comes over http, and the signature that makes it safe "
            f"cannot be checked: {checked.why}.",
            hint=checked.remedy,
        )
    kind = Kind(recipe.checksum_kind.value)
    name = _file_name(recipe.url)
    digest = checksums.expected(checked.text, name, kind, recipe.checksums)
    return _Said(digest, checked)


def _pulled(
    job: Job, recipe: Recipe, said: _Said, pin: pins.Pin | None, place: pathlib.Path
) -> str:
    """Fetch the content of a recipe's image and return its sha256."""
    from vmctl.images import download

    kinds = {Kind.SHA256} | ({said.digest.kind} if said.digest is not None else set())

    def judge(found: Mapping[Kind, Digest]) -> None:
        if said.digest is not None:
            _require_same(recipe.url, said.digest, found[said.digest.kind], recipe.checksums)

    format_ = DiskFormat(recipe.format.value)
    with download.turn(recipe.url, job.progress) as turn:
        fetched = _fetched(turn, kinds, judge, format_, secure=not said.signed)
        sha256 = fetched.digest.value
        if pin is not None:
            _refuse_change(job, said, pin.sha256, sha256)
        shelf.take(fetched.path, place)
    return sha256


@dataclasses.dataclass(frozen=True, slots=True)
class _Content:
    """A file that was fetched, measured and admitted."""

    path: pathlib.Path
    digest: Digest
    length: int
    admitted: ImageInfo


def _fetched(
    turn: download.Turn,
    kinds: set[Kind],
    judge: _Judge,
    format: DiskFormat,  # noqa: A002
    *,
    secure: bool,
) -> _Content:
    """Fetch from an address and return what passed; what did not is not kept.

    A file that came in pieces may be made of two: it is fetched once more, in one.
    """
    while True:
        fetched = turn.fetch(secure=secure)
        told = functools.partial(_told_of_checking, turn.progress, fetched.size)
        try:
            found = checksums.measure(fetched.path, kinds, told)
            judge(found)
            admitted = _admitted(fetched.path, format, turn.url)
        except errors.RefusedError:
            fetched.discard()
            if fetched.resumed:
                continue
            raise
        return _Content(fetched.path, found[Kind.SHA256], fetched.size, admitted)


def _told_of_checking(progress: Progress, size: int, done: int) -> None:
    progress("checking", done, size)


def _require_same(url: str, wanted: Digest, found: Digest, source: str) -> None:
    if wanted != found:
        raise errors.RefusedError(
            f"'{url}' is not what it should be: its {wanted.kind} is '{found.value}', and "
            f"{source} says '{wanted.value}'.",
            hint="Try again later: the publisher may be replacing it. If it goes on, something on "
            "the way changes it: try another network.",
        )


def _admitted(path: pathlib.Path, format: DiskFormat, url: str) -> ImageInfo:  # noqa: A002
    """Let the gate judge a file, and name the address in what it says."""
    try:
        return gate.admit(path, format, Deadline.after(_ADMISSION_SECONDS))
    except errors.RefusedError as problem:
        raise errors.RefusedError(
            problem.message.replace(str(path), url),
            hint="Name the address of a disk image, with its format: qcow2 or raw.",
            details=problem.details,
        ) from None


def _file_name(url: str) -> str:
    return urllib.parse.unquote(urllib.parse.urlsplit(url).path.rpartition("/")[2])


def _shown_name(url: str) -> str:
    name = _file_name(url) or urllib.parse.urlsplit(url).netloc
    return "".join(letter if letter.isprintable() else "?" for letter in name)


def remarks(layout: Layout, name: str) -> tuple[str, str]:
    """Return what is worth saying of how an image's origin was checked, and what to do about it.

    Both are empty where there is nothing to say.
    """
    recipe = recipes.read(name)
    pin = pins.read(layout, recipe.url) if recipe.url and recipe.keyrings else None
    if pin is None or pin.signer:
        return "", ""
    text = (
        f"The signature of image '{name}' was not checked: {pin.why}. Its checksum was, over https."
    )
    return text, pin.remedy


def find_address(layout: Layout, url: str, sha256: str, format: DiskFormat) -> Image:  # noqa: A002
    """Return the image that an address and a digest stand for; the digest is empty if absent."""
    stored = catalog.stored(layout, sha256)
    if stored is not None and stored.disk and stored.disk_format is format:
        return dataclasses.replace(stored, name=_shown_name(url))
    return Image(
        name=_shown_name(url),
        disk=str(layout.images / f"not-pulled-{sha256}" / catalog.disk_name(format)),
        disk_format=format,
        drivers=frozenset(drivers.STANDARD),
    )


def ensure_address(
    layout: Layout,
    url: str,
    sha256: str,
    format: DiskFormat,  # noqa: A002
    progress: Progress,
) -> Image:
    """Return the image that an address and a digest stand for, pulling it where it is absent.

    Of several callers at once, one fetches and the others wait. Raises RefusedError, NotFoundError,
    HostError, ConflictError, WaitTimeoutError.
    """
    from vmctl.images import download

    image = find_address(layout, url, sha256, format)
    if image.present:
        return image
    wanted = Digest(Kind.SHA256, sha256)

    def judge(found: Mapping[Kind, Digest]) -> None:
        _require_same(url, wanted, found[Kind.SHA256], "the spec")

    with download.turn(url, progress) as turn:
        image = find_address(layout, url, sha256, format)
        if not image.present:
            content = _fetched(turn, {Kind.SHA256}, judge, format, secure=False)
            _put(layout, url, content)
            pins.write(layout, pins.Pin(url=url, sha256=sha256))
    return find_address(layout, url, sha256, format)


def pull_address(
    layout: Layout,
    url: str,
    format: DiskFormat,  # noqa: A002
    progress: Progress,
    *,
    consent: bool = False,
) -> tuple[Image, bool]:
    """Pull what an address leads to now; nothing says what that should be, but the first time.

    `consent` accepts a change. Returns the image and whether it was pulled. Raises as
    `ensure_address` does.
    """
    from vmctl.images import download

    pin = pins.read(layout, url)
    if pin is not None and not consent:
        image = find_address(layout, url, pin.sha256, format)
        if image.present:
            return image, False
    with download.turn(url, progress) as turn:
        content = _fetched(turn, {Kind.SHA256}, lambda _: None, format, secure=True)
        sha256 = content.digest.value
        if pin is not None and pin.sha256 != sha256 and not consent:
            again = f"vmctl image pull --renew {url}"
            raise pins.changed(url, pin.sha256, sha256, again)
        before = find_address(layout, url, sha256, format)
        if not before.present:
            _put(layout, url, content)
        pins.write(layout, pins.Pin(url=url, sha256=sha256))
    return find_address(layout, url, sha256, format), not before.present


def _put(layout: Layout, url: str, content: _Content) -> None:
    """Put an admitted content into the store."""
    key = f"url-{content.digest.value}"
    for directory in (layout.images, layout.image_names):
        files.make_directory(directory)
    deadline = Deadline.after(_STORE_SECONDS)
    admitted, sha256 = content.admitted, content.digest.value
    with locks.hold(layout.lock("image", key), deadline, f"Image '{url}'"):
        drafts.clear(layout, key)
        with shelf.failures_said(layout), drafts.workshop(layout, key) as draft:
            shelf.take(content.path, draft / catalog.disk_name(admitted.format))
            facts = shelf.disk_facts(
                admitted.format,
                admitted.virtual_size,
                content.length,
                sha256,
                "a disk image from an address",
            )
            named = {**facts, "name": _shown_name(url), "source": url, "digest": sha256}
            shelf.publish(layout, draft, named, f"Image '{url}'", deadline)
