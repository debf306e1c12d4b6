"""Where in a machine's keys files of the host are named."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping

from vmctl.spec import nodes, paths, public_key
from vmctl.spec.model import MachineSpec


def locations(tree: nodes.Mapping) -> Iterator[nodes.Path]:
    """Yield the paths in a machine's tree that may hold the path of a file."""
    yield ("image", "path")
    yield ("user_data",)
    yield from (("cdroms", number) for number in _numbers(tree, "cdroms"))
    yield from (("disks", number, "path") for number in _numbers(tree, "disks"))
    yield from (("mounts", number, "host") for number in _numbers(tree, "mounts"))
    yield from (("provision", number, "run") for number in _numbers(tree, "provision"))
    for number in _numbers(tree, "ssh_keys"):
        node, _, _ = nodes.find(tree, ("ssh_keys", number))
        if isinstance(node, nodes.Scalar) and _names_a_file(node.value):
            yield ("ssh_keys", number)


def _numbers(tree: nodes.Mapping, key: str) -> range:
    node = tree.get(key)
    return range(len(node.items) if isinstance(node, nodes.Sequence) else 0)


def _names_a_file(text: str) -> bool:
    return not public_key.looks_like_one(text) and not public_key.is_private(text)


def placed(spec: MachineSpec, found: Mapping[nodes.Path, str]) -> MachineSpec:
    """Return the machine with absolute paths."""
    image = spec.image
    if image is not None and image.path:
        image = image.model_copy(update={"path": found[("image", "path")]})
    return spec.model_copy(
        update={
            "image": image,
            "user_data": found.get(("user_data",), ""),
            "cdroms": tuple(found[("cdroms", number)] for number in range(len(spec.cdroms))),
            "disks": tuple(
                disk.model_copy(update={"path": found.get(("disks", number, "path"), "")})
                for number, disk in enumerate(spec.disks)
            ),
            "mounts": tuple(
                mount.model_copy(update={"host": found[("mounts", number, "host")]})
                for number, mount in enumerate(spec.mounts)
            ),
            "provision": tuple(
                step.model_copy(update={"run": found.get(("provision", number, "run"), "")})
                for number, step in enumerate(spec.provision)
            ),
            "ssh_keys": tuple(
                found.get(("ssh_keys", number), key) for number, key in enumerate(spec.ssh_keys)
            ),
        }
    )


def writable(tree: nodes.Mapping, location: nodes.Path) -> bool:
    """Tell whether the mount at `location` is one that the guest may write to."""
    node, _, complete = nodes.find(tree, (*location[:-1], "writable"))
    return complete and isinstance(node, nodes.Scalar) and node.value.lower() == "true"


def unfit_to_write(path: str, specs: Iterable[str]) -> str:
    """Return why a directory is never mounted writable, or nothing.

    `specs` are the files that the spec consists of: who may write beside them may change what the
    next `up` does.
    """
    if path == "/":
        return "'/' is never mounted writable"
    for spec in specs:
        # Where the name is, and where a symbolic link leads.
        for file in (os.path.abspath(spec), os.path.realpath(spec)):
            if paths.holds(path, os.path.realpath(os.path.dirname(file))):
                return "the spec's own directory is never mounted writable"
    return ""
