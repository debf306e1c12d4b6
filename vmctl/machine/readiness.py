"""When a machine counts as ready: what its spec says, else its image, else what can be seen."""

from __future__ import annotations

from vmctl import deadline
from vmctl.machine.first_boot import FirstBoot, Refuse
from vmctl.machine.model import Accel, Devices, Image, Mode, Ready
from vmctl.spec.choices import NetworkKind
from vmctl.spec.model import MachineSpec, ReadySpec

_TIMEOUT_S = 120.0


def resolve(
    spec: MachineSpec,
    mode: Mode,
    image: Image | None,
    begun: FirstBoot,
    refuse: Refuse,
    *,
    emulated_host: bool = False,
) -> Ready:
    """Return what is waited for. Raises what `refuse` returns.

    Where the host's own processor is emulated, guests under KVM are as slow as others under TCG.
    """
    wish = spec.ready or ReadySpec()
    pattern = wish.pattern or (image.ready_pattern if image is not None else "")
    when = _wished(wish)
    if when:
        objection = _objection(when, spec, mode, begun, pattern)
        if objection:
            raise refuse(("ready", "when") if wish.when else ("ready",), *objection)
    else:
        when = _usual(spec, mode, image, begun)
    seconds = wish.timeout or (image.ready_timeout if image is not None else 0)
    patience = deadline.TCG_PATIENCE if emulated_host or mode.accel is Accel.TCG else 1
    return Ready(
        when=when,
        pattern=pattern if when == "console" else "",
        timeout=(seconds or _TIMEOUT_S) * patience,
    )


def _wished(wish: ReadySpec) -> str:
    if wish.when is not None:
        return wish.when.value
    return "console" if wish.pattern else ""


def _usual(spec: MachineSpec, mode: Mode, image: Image | None, begun: FirstBoot) -> str:
    """Return what is waited for where the spec does not say: the best that can be seen."""
    wanted = image.ready_when if image is not None else ""
    if spec.cloud_init is not None or spec.user_data:
        wanted = "cloud-init"
    pattern = image.ready_pattern if image is not None else ""
    for when in (wanted, "console", "ssh" if image is not None and image.cloud_init else ""):
        if when and not _objection(when, spec, mode, begun, pattern):
            return when
    return "cloud-init" if image is not None and image.cloud_init else "running"


def _objection(
    when: str, spec: MachineSpec, mode: Mode, begun: FirstBoot, pattern: str
) -> tuple[str, str] | None:
    """Return why something cannot be waited for, and what to do; None where it can."""
    if when == "console" and not pattern:
        return "ready: {when: console} needs a pattern", "add 'pattern: login:'"
    if when == "agent" and mode.devices is Devices.EMULATED:
        message = f"the guest agent's channel is a virtio device, which mode '{mode}' does not have"
        return message, "write 'when: ssh'"
    if when == "cloud-init" and not begun.seeded:
        return "'when: cloud-init' waits for cloud-init, which gets no seed here", ""
    if when == "ssh" and not begun.user:
        return "'when: ssh' logs in, and nothing says that the image lets vmctl in", "add 'user:'"
    if when == "ssh" and not reachable(spec):
        message = "'when: ssh' needs a network over which vmctl reaches the machine"
        return message, "add '- {kind: user}' to networks"
    return None


def reachable(spec: MachineSpec) -> bool:
    """Tell whether the host knows an address of the machine: on a bridge only a fixed one."""
    return any(
        network.kind is not NetworkKind.BRIDGE or network.address for network in spec.networks
    )
