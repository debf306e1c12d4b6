"""Makes container images, good ones and hostile ones, without any tool for containers."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import pathlib
import tarfile
from collections.abc import Callable, Mapping, Sequence
from typing import Any

Entry = tarfile.TarInfo | tuple[tarfile.TarInfo, bytes]


def entry(name: str, kind: bytes = tarfile.REGTYPE, **fields: Any) -> tarfile.TarInfo:
    """Return an entry of an archive."""
    info = tarfile.TarInfo(name)
    info.type = kind
    info.mode = 0o755 if kind == tarfile.DIRTYPE else 0o644
    for field, value in fields.items():
        setattr(info, field, value)
    return info


def file(name: str, content: bytes = b"x", **fields: Any) -> Entry:
    return entry(name, size=len(content), **fields), content


def directory(name: str, **fields: Any) -> Entry:
    return entry(name, tarfile.DIRTYPE, **fields)


def symlink(name: str, target: str) -> Entry:
    return entry(name, tarfile.SYMTYPE, linkname=target)


def hardlink(name: str, target: str) -> Entry:
    return entry(name, tarfile.LNKTYPE, linkname=target)


def device(name: str, kind: bytes = tarfile.CHRTYPE, major: int = 5, minor: int = 1) -> Entry:
    return entry(name, kind, devmajor=major, devminor=minor)


def layer(*entries: Entry, format: int = tarfile.PAX_FORMAT) -> bytes:  # noqa: A002
    """Return a tar archive."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=format) as archive:
        for each in entries:
            info, content = each if isinstance(each, tuple) else (each, b"")
            archive.addfile(info, io.BytesIO(content))
    return stream.getvalue()


def sha256(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def config(layers: Sequence[bytes], **inner: Any) -> dict[str, Any]:
    known = {"Entrypoint": ["/bin/run"], "Cmd": ["one"], "Env": ["A=1"], **inner}
    return {
        "os": "linux",
        "architecture": "amd64",
        "config": {key: value for key, value in known.items() if value is not None},
        "rootfs": {"type": "layers", "diff_ids": [sha256(each) for each in layers]},
    }


PROGRAM = file("bin/run", b"#!/bin/sh\n", mode=0o755)


class Layout:
    """An OCI image layout in a directory; what tests change is changed before `write`."""

    def __init__(
        self,
        *layers: bytes,
        pack: Callable[[bytes], bytes] = gzip.compress,
        media: str = "application/vnd.oci.image.layer.v1.tar+gzip",
        **inner: Any,
    ) -> None:
        self.layers = layers or (layer(PROGRAM),)
        self.blobs: dict[str, bytes] = {}
        self.config = config(self.layers, **inner)
        self.described = [self.blob(pack(each), media) for each in self.layers]
        self.manifests: list[dict[str, Any]] = []
        self.changed: Mapping[str, Any] = {}

    def blob(self, content: bytes, media: str) -> dict[str, Any]:
        self.blobs[sha256(content)] = content
        return {"mediaType": media, "digest": sha256(content), "size": len(content)}

    def manifest(self, name: str = "app", **fields: Any) -> dict[str, Any]:
        """Add a manifest of this image to the index."""
        text = json.dumps(self.config).encode()
        body = {
            "schemaVersion": 2,
            "config": self.blob(text, "application/vnd.oci.image.config.v1+json"),
            "layers": self.described,
            **self.changed,
        }
        kind = "application/vnd.oci.image.manifest.v1+json"
        described = self.blob(json.dumps(body).encode(), kind)
        described["annotations"] = {"org.opencontainers.image.ref.name": name}
        self.manifests.append({**described, **fields})
        return described

    def write(self, top: pathlib.Path) -> pathlib.Path:
        if not self.manifests:
            self.manifest()
        (top / "blobs" / "sha256").mkdir(parents=True)
        (top / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
        index = {"schemaVersion": 2, "manifests": self.manifests}
        (top / "index.json").write_text(json.dumps(index))
        for digest, content in self.blobs.items():
            (top / "blobs" / digest.replace(":", "/")).write_bytes(content)
        return top


def packed(top: pathlib.Path, archive: pathlib.Path, mode: str = "w") -> pathlib.Path:
    """Put a layout into a tar archive."""
    with tarfile.open(archive, mode) as stream:  # type: ignore[call-overload]
        for path in sorted(top.rglob("*")):
            stream.add(path, path.relative_to(top))
    return archive


def saved(path: pathlib.Path, *layers: bytes, tag: str = "app:1", **inner: Any) -> pathlib.Path:
    """Write what `docker save` writes."""
    chosen = layers or (layer(PROGRAM),)
    text = json.dumps(config(chosen, **inner)).encode()
    name = f"{hashlib.sha256(text).hexdigest()}.json"
    names = [f"{hashlib.sha256(each).hexdigest()}/layer.tar" for each in chosen]
    listing = [{"Config": name, "RepoTags": [tag], "Layers": names}]
    parts = [file(name, text), file("manifest.json", json.dumps(listing).encode())]
    parts += [file(each, content) for each, content in zip(names, chosen, strict=True)]
    path.write_bytes(layer(*parts))
    return path
