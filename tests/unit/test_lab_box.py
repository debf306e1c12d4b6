"""What is in a box for Vagrant."""

from __future__ import annotations

import json
import pathlib

import pytest

from vmctl import errors
from vmctl.deadline import Deadline
from vmctl.lab import box
from vmctl.machine.model import Image


def image(name: str, **more: object) -> Image:
    return Image(name=name, digest="d" * 64, disk="/d.qcow2", cloud_init=True, **more)  # type: ignore[arg-type]


def config(name: str) -> dict[str, object]:
    first, _, rest = box.content(image(name)).user_data.partition(b"\n")
    assert first == b"#cloud-config"
    found = json.loads(rest)
    assert isinstance(found, dict)
    return found


def test_vagrants_user_may_do_all_without_a_password() -> None:
    users = config("debian-12-min")["users"]
    assert isinstance(users, list)
    (user,) = users
    assert (user["name"], user["lock_passwd"]) == ("vagrant", True)
    assert user["ssh_authorized_keys"] == [box.INSECURE_KEY]
    assert "NOPASSWD" in user["sudo"]


def test_only_the_lab_host_takes_the_probe() -> None:
    assert "bootcmd" not in config("debian-12-min")
    assert "/opt/vmctl/vmctl/lab/probe/" in str(config("lab-host")["bootcmd"])


def test_another_image_is_another_instance() -> None:
    one, other = (
        json.loads(box.content(Image(name="x", digest=digit * 64)).meta_data) for digit in "ab"
    )
    assert one["instance-id"] != other["instance-id"]


def test_the_provider_is_told_of_both_disks() -> None:
    found = box.metadata()
    assert (found["provider"], found["format"]) == ("libvirt", "qcow2")
    assert found["disks"] == [{"path": "disk.qcow2"}, {"path": "seed.qcow2"}]


@pytest.mark.parametrize(
    "unfit",
    [
        Image(name="tiny", digest="d" * 64, kernel="/k"),
        Image(name="x", digest="d" * 64, disk="/d.qcow2"),
    ],
)
def test_an_image_without_disk_or_cloud_init_makes_no_box(
    unfit: Image, tmp_path: pathlib.Path
) -> None:
    target = tmp_path / "x.box"
    with pytest.raises(errors.UsageError, match=f"'{unfit.name}' makes no box"):
        box.write(unfit, target, Deadline.after(5))
    assert list(tmp_path.iterdir()) == []
