"""What libvirt cannot express: our own element in <metadata>."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Iterator

from vmctl.machine.model import Forward, Image, Machine, Ready
from vmctl.machine.xml.element import METADATA, Writer, number, yes_no

GUEST = ("hostname", "user", "ssh_keys", "cloud_init", "user_data", "provision")
"""Fields of a machine that say what its guest was given."""

_MACHINE = f"{{{METADATA}}}machine"
_APPLIED = "applied"


def _tag(name: str) -> str:
    return f"{{{METADATA}}}{name}"


def write(machine: Machine, out: Writer) -> None:
    """Say who owns the domain, and what of the machine has no element in libvirt."""
    metadata = out.add(out.root, "metadata")
    own = out.add(
        metadata,
        _MACHINE,
        project=machine.project,
        name=machine.name,
        mode=machine.mode.value,
        digest=machine.digest,
        host_cpu=machine.host_cpu,
        adopted=machine.console_log.rpartition("/")[0] if machine.adopted else "",
        why="vmctl: says that this domain is vmctl's own, and from what it was made",
    )
    if machine.image is not None:
        out.add(own, _tag("image"), name=machine.image.name, digest=machine.image.digest)
    for disk in machine.disks:
        out.add(
            own,
            _tag("disk"),
            name=disk.name,
            size=str(disk.size),
            keep=yes_no(disk.keep),
            external="yes" if disk.external else "",
        )
    for nic in machine.nics:
        out.add(
            own,
            _tag("nic"),
            mac=nic.mac,
            kind=nic.kind.value,
            address=nic.address,
            gateway=nic.gateway,
            dns=" ".join(nic.dns),
        )
    for forward in machine.forwards:
        out.add(
            own,
            _tag("forward"),
            host=str(forward.host),
            guest=str(forward.guest),
            host_address=forward.host_address,
            protocol=forward.protocol,
        )
    for mount in machine.mounts:
        out.add(own, _tag("mount"), tag=mount.tag, guest=mount.guest)
    for need in machine.needs:
        out.add(own, _tag("need"), name=need)
    _write_guest(machine, out, own)
    ready = machine.ready
    out.add(
        own,
        _tag("ready"),
        when=ready.when,
        pattern=ready.pattern,
        timeout=f"{ready.timeout:g}",
    )


def _write_guest(machine: Machine, out: Writer, own: ET.Element) -> None:
    """Say what the guest was given at its first boot: digests, never contents."""
    given = {name: str(getattr(machine, name)) for name in GUEST}
    if machine.hostname == machine.name:
        del given["hostname"]
    if any(given.values()):
        out.add(own, _tag("guest"), text="", why="", **given)


def live_text(machine: Machine, applied: str) -> str:
    """Return our element for a running domain, as libvirt takes it: without a namespace.

    `applied` is the digest of the machine whose changes were all carried out that can be.
    """
    out = Writer("domain")
    write(machine, out)
    own = out.root[0][0]
    own.set(_APPLIED, applied)
    return _bare(own)


def text(machine: Machine) -> str:
    """Return our element for a domain that is defined already, without a namespace."""
    out = Writer("domain")
    write(machine, out)
    return _bare(out.root[0][0])


def present(domain: str) -> str:
    """Return our element of a domain's XML, without a namespace; empty where there is none."""
    root = ET.fromstring(domain)  # noqa: S314  (libvirt's own output; its parser refuses entities)
    element = root.find(f"metadata/{_MACHINE}")
    return _bare(element) if element is not None else ""


def _bare(own: ET.Element) -> str:
    for element in own.iter():
        element.tag = element.tag.rpartition("}")[2]
    own.tail = ""
    return ET.tostring(own, encoding="unicode")


class Metadata:
    """Our own element of an existing domain.

    `adopted` is the directory of the machine in the store, where others made the domain.
    """

    def __init__(self, element: ET.Element) -> None:
        self._own = element
        self.project = element.get("project", "")
        self.name = element.get("name", "")
        self.mode = element.get("mode", "")
        self.digest = element.get("digest", "")
        self.host_cpu = element.get("host_cpu", "")
        self.applied = element.get(_APPLIED, "") or self.digest
        self.adopted = element.get("adopted", "")

    def _all(self, name: str) -> Iterator[ET.Element]:
        return self._own.iterfind(_tag(name))

    @property
    def image(self) -> Image | None:
        """Name and digest of the image; its paths are read elsewhere."""
        for element in self._all("image"):
            return Image(name=element.get("name", ""), digest=element.get("digest", ""))
        return None

    @property
    def disks(self) -> dict[str, ET.Element]:
        """The disks by name, with size and keep."""
        return {element.get("name", ""): element for element in self._all("disk")}

    @property
    def nics(self) -> dict[str, ET.Element]:
        """The network cards by MAC, with kind and address."""
        return {element.get("mac", ""): element for element in self._all("nic")}

    @property
    def forwards(self) -> tuple[Forward, ...]:
        """The forwarded ports."""
        return tuple(
            Forward(
                host=number(element.get("host")),
                guest=number(element.get("guest")),
                host_address=element.get("host_address", ""),
                protocol=element.get("protocol", ""),
            )
            for element in self._all("forward")
        )

    @property
    def mounts(self) -> dict[str, str]:
        """Where in the guest each mount is, by its tag."""
        return {element.get("tag", ""): element.get("guest", "") for element in self._all("mount")}

    @property
    def guest(self) -> dict[str, str]:
        """What the guest was given, by field of the machine."""
        given = {"hostname": self.name}
        for element in self._all("guest"):
            given |= {name: element.get(name, given.get(name, "")) for name in GUEST}
        return given

    @property
    def needs(self) -> tuple[str, ...]:
        """The machines that must be ready first."""
        return tuple(element.get("name", "") for element in self._all("need"))

    @property
    def ready(self) -> Ready:
        """When the machine counts as ready."""
        for element in self._all("ready"):
            return Ready(
                when=element.get("when", ""),
                pattern=element.get("pattern", ""),
                timeout=_seconds(element.get("timeout", "")),
            )
        return Ready()


def _seconds(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0


def read(root: ET.Element) -> Metadata | None:
    """Return our own element of a domain, or None where there is none or it is damaged."""
    element = root.find(f"metadata/{_MACHINE}")
    if element is None or not element.get("project") or not element.get("digest"):
        return None
    return Metadata(element)
