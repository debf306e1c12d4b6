"""What makes a guest run the job: archives behind the initramfs of its image."""

from __future__ import annotations

import pytest

from vmctl import errors
from vmctl.lab import cpio, starter


def test_the_tiny_guest_starts_it_from_its_inittab() -> None:
    found = dict(cpio.entries(starter.archive("tiny")))
    assert found["etc/inittab"].content.endswith(b"::once:/vmctl-lab/start\n")
    assert b"::sysinit:" in found["etc/inittab"].content
    assert found["vmctl-lab/start"].mode & 0o777 == 0o755


@pytest.mark.parametrize("image", ["debian-12-min", "lab-host"])
def test_a_debian_guest_gets_a_unit_on_the_way_into_the_system(image: str) -> None:
    found = dict(cpio.entries(starter.archive(image)))
    door = found["sbin/switch_root"]
    assert door.mode & 0o777 == 0o755
    assert door.content.rstrip().endswith(b'exec /bin/busybox switch_root "$@"')
    assert b"ExecStart=/bin/sh /run/vmctl-lab-start" in found["vmctl-lab/unit"].content
    assert b"is-system-running --wait" in found["vmctl-lab/start"].content
    assert not starter.kind(image).whole_in_initrd


@pytest.mark.parametrize("image", ["", "debian-12", "cirros"])
def test_an_image_that_the_lab_does_not_know_is_refused(image: str) -> None:
    with pytest.raises(errors.UsageError) as caught:
        starter.kind(image)
    assert (f"'{image}'" if image else "without an image") in caught.value.message
    assert "debian-12-min" in caught.value.hint
