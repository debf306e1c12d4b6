"""Rules about what goes into the guest: cloud-init, mounts, provision steps, how it is started."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from vmctl.spec import cloud_config
from vmctl.spec.choices import Boot, NetworkKind, ReadyWhen
from vmctl.spec.model import MachineSpec
from vmctl.spec.objection import Objection

_OWN_HOST_KEY = ("ed25519_private", "ed25519_public", "ed25519_certificate")


def _cloud_init(spec: MachineSpec) -> Iterator[Objection]:
    config = spec.cloud_init
    if config is None:
        return
    if spec.user_data:
        message = "cloud_init and user_data exclude each other"
        yield Objection(("user_data",), message, "leave out one of them")
    for key in cloud_config.APPENDED:
        if key in config and not isinstance(config[key], list):
            message = f"{key} in cloud_init must be a list, as it is added to vmctl's own"
            yield Objection(("cloud_init", key), message)
    if "user" in config:
        message = "user in cloud_init would take vmctl's own way into the guest"
        yield Objection(("cloud_init", "user"), message, "write 'user: NAME' outside of cloud_init")
    host_keys = config.get("ssh_keys")
    for key in _OWN_HOST_KEY:
        if isinstance(host_keys, dict) and key in host_keys:
            message = f"{key} is vmctl's own: by it the first login knows the machine"
            yield Objection(("cloud_init", "ssh_keys", key), message, "leave it out")


def _mounts(spec: MachineSpec) -> Iterator[Objection]:
    seen: set[str] = set()
    for number, mount in enumerate(spec.mounts):
        if mount.guest in seen:
            message = f"two mounts have the place '{mount.guest}' in the guest"
            yield Objection(("mounts", number, "guest"), message)
        seen.add(mount.guest)


def _provision(spec: MachineSpec) -> Iterator[Objection]:
    for number, step in enumerate(spec.provision):
        if step.run and step.script:
            message = "a provision step has both 'run' and 'script'"
            yield Objection(("provision", number, "script"), message, "make two steps of it")
        elif not step.run and not step.script:
            message = "a provision step has neither 'run' nor 'script'"
            yield Objection(("provision", number), message, "write 'run: ./setup.sh'")


def _reachable(spec: MachineSpec) -> Iterator[Objection]:
    ready = spec.ready
    needs_ssh = bool(spec.provision) or (ready is not None and ready.when is ReadyWhen.SSH)
    if not needs_ssh:
        return
    location = ("provision",) if spec.provision else ("ready", "when")
    reached = any(
        network.kind is not NetworkKind.BRIDGE or network.address for network in spec.networks
    )
    if not reached:
        message = "needs ssh, and the machine has no network over which vmctl could reach it"
        hint = "add '- {kind: user}' to networks"
        yield Objection(location, f"{'.'.join(location)} {message}", hint)


def _boot(spec: MachineSpec) -> Iterator[Objection]:
    if spec.boot is Boot.KERNEL and spec.boot_order:
        message = "boot_order says what the firmware tries, and 'boot: kernel' asks no firmware"
        yield Objection(("boot_order",), message, "leave out one of them")
    if spec.boot is Boot.KERNEL and spec.image is None:
        yield Objection(("boot",), "boot 'kernel' needs an image, and there is none")


RULES: tuple[Callable[[MachineSpec], Iterable[Objection]], ...] = (
    _cloud_init,
    _mounts,
    _provision,
    _reachable,
    _boot,
)
