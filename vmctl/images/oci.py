"""Reads container images: OCI image layouts, and what `docker save` writes.

(OCI image specification 1.1: image-layout.md, image-index.md, manifest.md, config.md; Docker image
specification 1.2.) Every part is compared with its digest before anything is done with it.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import pathlib
import re
from collections.abc import Iterator, Mapping
from typing import Any

from vmctl import errors
from vmctl.deadline import Deadline
from vmctl.images import blobs, tarball
from vmctl.images.blobs import Piece, Source
from vmctl.images.job import Progress
from vmctl.images.rootfs import Tree

CONTENTS = "contents"
"""The directory in the spool where the contents of files lie."""

_MOST_LAYERS = 512
_MOST_INDEXES = 4
_MANIFESTS = (
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)
_INDEXES = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
)
_CONFIGS = (
    "application/vnd.oci.image.config.v1+json",
    "application/vnd.docker.container.image.v1+json",
)
_LAYERS = tuple(
    f"application/vnd.{kind}"
    for kind in (
        "oci.image.layer.v1.tar",
        "oci.image.layer.v1.tar+gzip",
        "oci.image.layer.v1.tar+zstd",
        "docker.image.rootfs.diff.tar",
        "docker.image.rootfs.diff.tar.gzip",
        "docker.image.rootfs.diff.tar.zstd",
    )
)
_FOREIGN = ("nondistributable", "foreign")
_NAMES = ("org.opencontainers.image.ref.name", "io.containerd.image.name")


@dataclasses.dataclass(frozen=True, slots=True)
class Layer:
    """One layer: where it lies, and the digest of its unpacked form (`diff_id`)."""

    piece: Piece
    diff_id: str


@dataclasses.dataclass(frozen=True, slots=True)
class Container:
    """A container image: its layers from the lowest up, and its configuration."""

    layers: tuple[Layer, ...]
    config: Mapping[str, Any]
    config_digest: str
    reference: str

    @property
    def diff_ids(self) -> list[str]:
        """The digests of the unpacked layers; equal lists mean equal files."""
        return [layer.diff_id for layer in self.layers]


def recognised(path: pathlib.Path) -> bool:
    """Tell a container image from a disk by a look at its first bytes."""
    if path.is_dir():
        return True
    try:
        with path.open("rb") as stream:
            header = stream.read(512)
    except OSError:
        return False
    return (
        header[257:262] == b"ustar"
        or header[:2] == b"\x1f\x8b"
        or header[:4] == b"\x28\xb5\x2f\xfd"
    )


def read(source: Source, what: str, reference: str, deadline: Deadline) -> Container:
    """Return the one image for linux/amd64; `reference` chooses among several.

    Raises RefusedError for what is damaged, incomplete or for another platform, UsageError where
    there are several.
    """
    if source.find("oci-layout") is not None:
        return _Layout(source, what, deadline).image(reference)
    if source.find("manifest.json") is not None:
        return _saved(source, what, reference, deadline)
    raise errors.RefusedError(
        f"{what} is no container image: it has neither 'oci-layout' nor 'manifest.json'.",
        hint="Make one: skopeo copy docker://IMAGE oci:DIRECTORY, or docker save -o FILE IMAGE",
    )


def unpack(
    container: Container, spool: pathlib.Path, what: str, deadline: Deadline, progress: Progress
) -> Tree:
    """Apply the layers in their order. Raises RefusedError, HostError, WaitTimeoutError."""
    contents = spool / CONTENTS
    contents.mkdir()
    tree = Tree(contents, what)
    for number, layer in enumerate(container.layers, start=1):
        progress("unpacking layers", number - 1, len(container.layers))
        name = f"Layer {number} of {what[:1].lower()}{what[1:]}"
        with blobs.uncompressed(layer.piece, spool, name, deadline) as plain:
            stream = _Hashed(plain)
            tree.apply(tarball.Archive(stream, name), deadline)
            actual = stream.finish()
        if actual != layer.diff_id:
            raise errors.RefusedError(
                f"{name} is not what its configuration says: unpacked, its digest is '{actual}' "
                f"and should be '{layer.diff_id}'.",
                hint="Make it again, or fetch it again.",
            )
    return tree


class _Hashed:
    """A stream whose digest is taken while it is read."""

    def __init__(self, stream: tarball.Stream) -> None:
        self._stream = stream
        self._digest = hashlib.sha256()

    def read(self, size: int, /) -> bytes:
        data = self._stream.read(size)
        self._digest.update(data)
        return data

    def finish(self) -> str:
        """Read what the archive's reader left (padding) and return the digest."""
        while self.read(tarball.CHUNK):
            pass
        return f"sha256:{self._digest.hexdigest()}"


class _Layout:
    """An OCI image layout."""

    def __init__(self, source: Source, what: str, deadline: Deadline) -> None:
        self._source = source
        self._what = what
        self._deadline = deadline

    def image(self, reference: str) -> Container:
        version = blobs.read_json(self._source, "oci-layout", self._what)
        if not isinstance(version, dict) or version.get("imageLayoutVersion") != "1.0.0":
            raise self._refused("has a version of the image layout that vmctl does not know")
        index = blobs.read_json(self._source, "index.json", self._what)
        found = list(self._manifests(index, 0))
        if reference:
            found = [each for each in found if reference in _names(each)]
        digests = {str(each.get("digest")) for each in found}
        if not found:
            raise self._refused(
                f"has no image '{reference}'" if reference else "has no image for linux/amd64"
            )
        if len(digests) > 1:
            raise _several(self._what, [name for each in found for name in _names(each)])
        return self._container(found[0], reference or ", ".join(_names(found[0])))

    def _manifests(self, index: Any, depth: int) -> Iterator[dict[str, Any]]:
        """Yield the descriptors of manifests for this platform, or for an unknown one."""
        entries = index.get("manifests") if isinstance(index, dict) else None
        if not isinstance(entries, list) or depth > _MOST_INDEXES:
            raise self._refused("has an index that cannot be understood")
        for entry in entries:
            kind, digest, size = blobs.described(entry, self._what)
            if not _fitting(entry.get("platform")):
                continue
            if kind in _INDEXES:
                below = self._json(digest, size)
                for each in self._manifests(below, depth + 1):
                    # The name belongs to the outer entry.
                    yield {**each, "annotations": entry.get("annotations") or {}}
            elif kind in _MANIFESTS:
                yield entry

    def _container(self, entry: dict[str, Any], reference: str) -> Container:
        _, digest, size = blobs.described(entry, self._what)
        manifest = self._json(digest, size)
        layers = manifest.get("layers") if isinstance(manifest, dict) else None
        if not isinstance(layers, list) or not 0 < len(layers) <= _MOST_LAYERS:
            raise self._refused("has a manifest without layers, or with too many")
        kind, config_digest, config_size = blobs.described(manifest.get("config"), self._what)
        if kind not in _CONFIGS:
            raise self._refused(f"holds no container image but something of the type '{kind}'")
        config = self._json(config_digest, config_size)
        diff_ids = _checked(config, len(layers), self._what)
        pieces = [self._layer(layer) for layer in layers]
        return Container(
            tuple(Layer(piece, diff_id) for piece, diff_id in zip(pieces, diff_ids, strict=True)),
            config,
            config_digest,
            reference,
        )

    def _layer(self, layer: Any) -> Piece:
        kind, digest, size = blobs.described(layer, self._what)
        if any(word in kind for word in _FOREIGN) or layer.get("urls"):
            raise self._refused(f"has a layer that lies elsewhere ('{digest}')")
        if kind not in _LAYERS:
            raise self._refused(f"has a layer of the type '{kind}', which vmctl cannot unpack")
        return blobs.verified(self._source, digest, size, self._what, self._deadline)

    def _json(self, digest: str, size: int) -> Any:
        blobs.verified(self._source, digest, size, self._what, self._deadline)
        return blobs.read_json(self._source, f"blobs/{digest.replace(':', '/')}", self._what)

    def _refused(self, what: str) -> errors.RefusedError:
        return errors.RefusedError(f"{self._what} {what}.")


def _fitting(platform: Any) -> bool:
    if not isinstance(platform, dict):
        return True
    return (platform.get("os"), platform.get("architecture")) == ("linux", "amd64")


def _names(entry: Mapping[str, Any]) -> list[str]:
    notes = entry.get("annotations")
    known = notes if isinstance(notes, dict) else {}
    return [str(known[key]) for key in _NAMES if known.get(key)]


def _several(what: str, names: list[str]) -> errors.UsageError:
    return errors.UsageError(
        f"{what} holds several images: {', '.join(sorted(names)) or 'none has a name'}.",
        hint="Choose one: --ref NAME",
    )


def _saved(source: Source, what: str, reference: str, deadline: Deadline) -> Container:
    """Return the image of a `docker save` archive, whose layers are named by files."""
    listing = blobs.read_json(source, "manifest.json", what)
    images = (
        [each for each in listing if isinstance(each, dict)] if isinstance(listing, list) else []
    )
    if reference:
        images = [each for each in images if reference in (each.get("RepoTags") or ())]
    if not images:
        raise errors.RefusedError(f"{what} has no image{f' {reference!r}' if reference else ''}.")
    if len(images) > 1:
        raise _several(what, [str(tag) for each in images for tag in each.get("RepoTags") or ()])
    (chosen,) = images
    names, config_name = chosen.get("Layers"), chosen.get("Config")
    if not isinstance(names, list) or not 0 < len(names) <= _MOST_LAYERS:
        raise errors.RefusedError(f"{what} has an image without layers, or with too many.")
    config = blobs.read_json(source, str(config_name), what)
    piece = source.find(str(config_name))
    assert piece is not None
    digest = hashlib.sha256(piece.read(piece.size)).hexdigest()
    written = re.search(r"[0-9a-f]{64}", str(config_name))
    if written and written[0] != digest:
        raise errors.RefusedError(f"The file '{config_name}' of {what} is not what its name says.")
    layers = []
    for name, diff_id in zip(names, _checked(config, len(names), what), strict=True):
        found = source.find(str(name))
        if found is None:
            raise errors.RefusedError(f"{what} lacks its layer '{name}'.")
        layers.append(Layer(found, diff_id))
    blobs.refuse_to_be_late(what, deadline)
    tags = ", ".join(str(tag) for tag in chosen.get("RepoTags") or ())
    return Container(tuple(layers), config, f"sha256:{digest}", reference or tags)


def _checked(config: Any, layers: int, what: str) -> list[str]:
    """Return the digests of the unpacked layers; refuses other platforms."""
    known: Mapping[str, Any] = config if isinstance(config, dict) else {}
    if not _fitting({key: known.get(key) for key in ("os", "architecture")}):
        said = f"{known.get('os')}/{known.get('architecture')}"
        raise errors.RefusedError(
            f"{what} is an image for {said}; a machine needs one for linux/amd64.",
            hint="Fetch that one, for example: skopeo copy --override-arch amd64 …",
        )
    root = known.get("rootfs")
    diff_ids = root.get("diff_ids") if isinstance(root, dict) else None
    if not isinstance(diff_ids, list) or len(diff_ids) != layers:
        raise errors.RefusedError(f"{what} does not say what its {layers} layers unpack to.")
    for each in diff_ids:
        if not isinstance(each, str) or not re.fullmatch(r"sha256:[0-9a-f]{64}", each):
            raise errors.RefusedError(
                f"{what} gives {json.dumps(each)[:80]} for the digest of a layer."
            )
    return [str(each) for each in diff_ids]
