"""The seed that cloud-init reads (its NoCloud data source): what is in it, and the ISO image of it.

What vmctl generates is a #cloud-config. A spec's `cloud_init` is laid over it and both are the
user-data. A spec's `user_data` is the user-data byte for byte; what vmctl generates is then the
vendor-data, which cloud-init lays below it.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
from typing import Any

from vmctl.machine import mounting
from vmctl.machine.model import Machine, Nic, NicKind
from vmctl.machine.payload import Payload
from vmctl.spec.cloud_config import APPENDED

LABEL = "CIDATA"
"""By this name of the file system cloud-init finds the seed."""

_ROOT = "root"
_SECTOR = 2048
_DATE = bytes((80, 1, 1, 0, 0, 0, 0))
"""The first moment of 1980 as directories have it (ECMA-119, 9.1.5)."""

_LONG_DATE = b"1980010100000000\0"
"""The same as the volume's descriptor has it (ECMA-119, 8.4.26.1)."""

_NO_CLOUD_CONFIG = b"#cloud-config\n{}\n"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Keys:
    """Keys in OpenSSH's own form: the public one that lets vmctl in, and the guest's host key."""

    login: str
    host_private: str
    host_public: str


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Content:
    """The files of a seed; `vendor_data` is empty where there is none."""

    user_data: bytes
    meta_data: bytes
    network_config: bytes
    vendor_data: bytes = b""

    def files(self) -> dict[str, bytes]:
        """Return the files by name."""
        found = {
            "user-data": self.user_data,
            "meta-data": self.meta_data,
            "network-config": self.network_config,
            "vendor-data": self.vendor_data,
        }
        return {name: content for name, content in found.items() if content}

    @property
    def digest(self) -> str:
        """Sha256 (hex) over all files."""
        whole = hashlib.sha256()
        for name, content in self.files().items():
            whole.update(f"{name} {len(content)}\n".encode() + content)
        return whole.hexdigest()


def content(machine: Machine, payload: Payload, keys: Keys) -> Content:
    """Return what is in a machine's seed."""
    own = _config(machine, keys)
    meta = {
        "instance-id": instance_id(machine, keys),
        "local-hostname": machine.hostname,
        "public-keys": [keys.login, *payload.ssh_keys],
    }
    user_data, vendor_data = _cloud_config(merged(own, payload.cloud_init or {})), b""
    if payload.user_data is not None:
        user_data, vendor_data = payload.user_data or _NO_CLOUD_CONFIG, _cloud_config(own)
    return Content(
        user_data=user_data,
        meta_data=_text(meta),
        network_config=_text(_network(machine)),
        vendor_data=vendor_data,
    )


def instance_id(machine: Machine, keys: Keys) -> str:
    """Return what tells cloud-init whether it has been here before.

    It stays as long as the machine does: what is carried out at the first boot is carried out
    again only where the keys were lost and made anew, as they would not be let in otherwise.
    """
    parts = (
        machine.hostname,
        machine.user,
        machine.ssh_keys,
        machine.cloud_init,
        machine.user_data,
        keys.login,
        keys.host_public,
    )
    digest = hashlib.sha256("\n".join(parts).encode()).hexdigest()
    return f"vmctl-{machine.uuid}-{digest[:12]}"


def _config(machine: Machine, keys: Keys) -> dict[str, Any]:
    """Return what vmctl tells cloud-init by itself."""
    config: dict[str, Any] = {
        # Made the image's default user, with the groups and the shell that its maker chose. In this
        # form cloud-init adds it to `users` whatever else is in there (ug_util.py).
        "user": {"name": machine.user},
        "users": ["default"],
        "ssh_deletekeys": True,
        "ssh_keys": {
            "ed25519_private": keys.host_private,
            "ed25519_public": keys.host_public,
        },
        "ssh": {"emit_keys_to_console": False},
        "no_ssh_fingerprints": True,
        "manage_etc_hosts": "localhost",
        # The image's own stays: to make another one takes a guest under TCG many seconds.
        "locale": "false",
        # A card that is added later is set up at the next start.
        "updates": {"network": {"when": ["boot-new-instance", "boot"]}},
        **mounting.cloud_config(machine.mounts),
    }
    if machine.user == _ROOT:
        config["disable_root"] = False
    return config


def merged(own: dict[str, Any], users: dict[str, Any]) -> dict[str, Any]:
    """Return the user's #cloud-config laid over vmctl's own.

    Mappings key by key; the lists in `APPENDED` have vmctl's items first and then the user's;
    elsewhere the user's value counts.
    """
    result = dict(own)
    for key, value in users.items():
        below = result.get(key)
        if isinstance(below, dict) and isinstance(value, dict):
            result[key] = merged(below, value)
        elif key in APPENDED and isinstance(below, list) and isinstance(value, list):
            result[key] = [*below, *(item for item in value if item not in below)]
        else:
            result[key] = value
    return result


def _network(machine: Machine) -> dict[str, Any]:
    """Return the network configuration (version 2), each card found by its MAC address."""
    if not machine.nics:
        return {"config": "disabled"}
    cards = {f"nic{index}": _card(nic) for index, nic in enumerate(machine.nics)}
    return {"version": 2, "ethernets": cards}


def _card(nic: Nic) -> dict[str, Any]:
    card: dict[str, Any] = {"match": {"macaddress": nic.mac}}
    if nic.kind is not NicKind.BRIDGE or not nic.address:
        # On vmctl's own networks a fixed address is reserved in their DHCP server.
        return {**card, "dhcp4": True}
    card["addresses"] = [nic.address]
    if nic.gateway:
        card["routes"] = [{"to": "0.0.0.0/0", "via": nic.gateway}]
    if nic.dns:
        card["nameservers"] = {"addresses": list(nic.dns)}
    return card


def _cloud_config(config: dict[str, Any]) -> bytes:
    return b"#cloud-config\n" + _text(config)


def _text(data: dict[str, Any]) -> bytes:
    # JSON is YAML. Characters beyond ASCII stand as they are: in pairs of \u, as JSON escapes
    # them, YAML does not know them.
    return json.dumps(data, ensure_ascii=False, indent=1).encode() + b"\n"


def iso(files: dict[str, bytes]) -> bytes:
    """Return an ISO 9660 image with Rock Ridge names; the same files give the same bytes."""
    # Dear to import, and needed once in the life of a machine.
    import pycdlib

    image = pycdlib.PyCdlib()
    image.new(interchange_level=3, vol_ident=LABEL, rock_ridge="1.09")
    for number, (name, data) in enumerate(sorted(files.items())):
        image.add_fp(io.BytesIO(data), len(data), f"/FILE{number}.;1", rr_name=name)
    written = io.BytesIO()
    image.write_fp(written)
    image.close()
    result = bytearray(written.getvalue())
    _fix_dates(result)
    return bytes(result)


def _fix_dates(image: bytearray) -> None:
    """Put the same date everywhere; pycdlib writes the time of day."""
    volume = 16 * _SECTOR
    for creation_modification_effective in (813, 830, 864):
        start = volume + creation_modification_effective
        image[start : start + len(_LONG_DATE)] = _LONG_DATE
    root = volume + 156
    image[root + 18 : root + 25] = _DATE
    place = int.from_bytes(image[root + 2 : root + 6], "little") * _SECTOR
    end = place + int.from_bytes(image[root + 10 : root + 14], "little")
    while place < end:
        length = image[place]
        if not length:
            # No record crosses the end of a sector.
            place = (place // _SECTOR + 1) * _SECTOR
            continue
        image[place + 18 : place + 25] = _DATE
        name = image[place + 32]
        _fix_stamps(image, place + 33 + name + (1 - name % 2), place + length)
        place += length


def _fix_stamps(image: bytearray, place: int, end: int) -> None:
    """Put the date into the time stamps of Rock Ridge (RRIP 1.09, 4.1.6), seven bytes each."""
    while place + 4 <= end and image[place + 2] >= 4:
        length = image[place + 2]
        if image[place : place + 2] == b"TF":
            stamps = length - 5
            image[place + 5 : place + length] = _DATE * (stamps // len(_DATE))
        place += length
