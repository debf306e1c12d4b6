"""From the spec to what a guest gets at its first boot: who logs in, what it is told. Pure."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterator

from vmctl import errors
from vmctl.machine.model import Image
from vmctl.machine.payload import Payload, Step
from vmctl.spec import nodes, public_key
from vmctl.spec.model import MachineSpec, ProvisionSpec
from vmctl.spec.problems import SpecError

DEFAULT_USER = "vmctl"
"""Who logs in where neither the spec nor the image says."""

_CARRIED_OUT = ("cloud_init", "user_data", "user", "ssh_keys")
"""Keys that only cloud-init can carry out."""

Refuse = Callable[[nodes.Path, str, str], SpecError]
"""Makes the error for a key of the machine: where, what is wrong, what to do."""


@dataclasses.dataclass(frozen=True, slots=True)
class FirstBoot:
    """What a guest gets; `seeded` says that cloud-init in it reads a seed."""

    hostname: str
    user: str
    seeded: bool
    payload: Payload


def resolve(
    spec: MachineSpec, image: Image | None, read: Callable[[str], bytes], refuse: Refuse
) -> FirstBoot:
    """Return what a machine's guest gets; `read` returns the content of a file beside the spec.

    Raises what `refuse` returns.
    """
    key = _first_key(spec)
    seeded = image.cloud_init if image is not None else False
    if key and not seeded:
        # Of a disk of the user's own nobody but the user knows what is on it.
        seeded = image is None or (bool(image.disk) and not image.container)
    if key and not seeded:
        assert image is not None
        raise refuse(
            (key,),
            f"{key} is carried out by cloud-init, which image '{image.name}' does not have",
            "use an image that has it; vmctl image list shows them",
        )
    user = spec.user or (image.user if image is not None else "")
    if seeded and not user:
        user = DEFAULT_USER
    payload = Payload(
        ssh_keys=tuple(_ssh_keys(spec, read, refuse)),
        cloud_init=spec.cloud_init,
        user_data=_content(spec.user_data, ("user_data",), read, refuse),
        steps=tuple(_steps(spec, read, refuse)),
    )
    if spec.provision and not user:
        message = "provision needs ssh, and nothing says that the image lets vmctl in"
        raise refuse(("provision",), message, "say who logs in: user: NAME")
    _refuse_to_forget(spec, image, refuse)
    return FirstBoot(spec.hostname or spec.name, user, seeded, payload)


def _refuse_to_forget(spec: MachineSpec, image: Image | None, refuse: Refuse) -> None:
    """Refuse to restart a guest that lives in memory: nothing of its steps would be left."""
    if image is None or image.disk:
        return
    for number, step in enumerate(spec.provision):
        if step.reboot:
            message = f"image '{image.name}' lives in memory: a reboot forgets what the steps did"
            raise refuse(("provision", number, "reboot"), message, "use an image with a disk")


def _first_key(spec: MachineSpec) -> str:
    """Return a key of the spec that only cloud-init can carry out, or nothing."""
    return next((key for key in _CARRIED_OUT if getattr(spec, key) not in ("", None, ())), "")


def _content(
    path: str, location: nodes.Path, read: Callable[[str], bytes], refuse: Refuse
) -> bytes | None:
    if not path:
        return None
    try:
        return read(path)
    except (errors.NotFoundError, errors.UsageError) as problem:
        raise refuse(location, problem.message, "") from None


def _ssh_keys(spec: MachineSpec, read: Callable[[str], bytes], refuse: Refuse) -> Iterator[str]:
    for number, written in enumerate(spec.ssh_keys):
        if not written.startswith("/"):
            yield written
            continue
        location = ("ssh_keys", number)
        text = (_content(written, location, read, refuse) or b"").decode("utf-8", "replace")
        name = os.path.basename(written)
        if public_key.is_private(text):
            message = f"'{name}' is a PRIVATE key; it must not be shared with a machine"
            raise refuse(location, message, f"write {name}.pub")
        found = public_key.lines(text)
        if not found:
            raise refuse(location, f"the file '{name}' holds no public key", "")
        for line in found:
            complaint = public_key.objection(line)
            if complaint:
                raise refuse(location, f"a key in '{name}' {complaint}", "")
            yield " ".join(line.split())


def _steps(spec: MachineSpec, read: Callable[[str], bytes], refuse: Refuse) -> Iterator[Step]:
    for number, step in enumerate(spec.provision):
        content = _content(step.run, ("provision", number, "run"), read, refuse)
        yield Step(
            name=step.name or _step_name(step, number),
            script=step.script.encode() if content is None else content,
            user=step.user,
            env=dict(step.env),
            timeout=step.timeout or 0.0,
            reboot=step.reboot,
        )


def _step_name(step: ProvisionSpec, number: int) -> str:
    return os.path.basename(step.run) if step.run else f"step {number + 1}"
