"""Control groups and I/O schedulers, from made-up trees of /proc and /sys."""

import os

import pytest

from vmctl.host import cgroups

MOUNT_V1 = "cgroup /sys/fs/cgroup/{name} cgroup rw,relatime,{options} 0 0\n"
MOUNT_V2 = "cgroup2 /sys/fs/cgroup cgroup2 rw,nosuid 0 0\n"


@pytest.fixture
def put(tmp_path):
    def write(files):
        for path, text in files.items():
            target = tmp_path / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text)
        return tmp_path

    return write


def mounts(*names):
    return "".join(MOUNT_V1.format(name=name, options=name) for name in names)


def test_version_1(put):
    root = put(
        {
            "proc/self/mounts": mounts("cpu,cpuacct", "cpuset", "memory", "devices"),
            "sys/fs/cgroup/cpuset/cpuset.effective_cpus": "2-3\n",
            "sys/devices/system/cpu/online": "0-7\n",
        }
    )
    found = cgroups.look(root)
    assert found.versions == {"cpu": 1, "cpuset": 1, "memory": 1}
    assert not found.unified
    assert found.processors == "2-3"


def test_version_2(put):
    root = put(
        {
            "proc/self/mounts": MOUNT_V2,
            "sys/fs/cgroup/cgroup.controllers": "cpuset cpu io memory hugetlb pids\n",
            "sys/devices/system/cpu/online": "0-7\n",
        }
    )
    found = cgroups.look(root)
    assert found.versions == {"cpuset": 2, "cpu": 2, "blkio": 2, "memory": 2}
    assert found.unified
    assert found.processors == "0-7"


def test_both_at_once_each_controller_where_it_is(put):
    root = put(
        {
            "proc/self/mounts": mounts("cpu", "memory")
            + "cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n",
            "sys/fs/cgroup/unified/cgroup.controllers": "io hugetlb\n",
        }
    )
    assert cgroups.look(root).versions == {"cpu": 1, "memory": 1, "blkio": 2}


def test_what_is_mounted_read_only_is_not_there(put):
    root = put(
        {
            "proc/self/mounts": MOUNT_V2.replace("rw,", "ro,"),
            "sys/fs/cgroup/cgroup.controllers": "cpu io\n",
        }
    )
    assert cgroups.look(root).versions == {}


def test_a_host_without_anything(tmp_path):
    found = cgroups.look(tmp_path)
    assert (found.versions, found.processors, found.unified) == ({}, "", False)
    assert not cgroups.may_lock_memory(tmp_path)


@pytest.mark.parametrize(
    ("mask", "may"), [("000001ffffffffff", True), ("000001fffeffffff", False), ("zz", False)]
)
def test_the_bounding_set_says_who_may_lock_memory(put, mask, may):
    root = put({"proc/self/status": f"Name:\tx\nCapBnd:\t{mask}\n"})
    assert cgroups.may_lock_memory(root) is may


@pytest.fixture
def disk(put, tmp_path, monkeypatch):
    """A partition of the disk vda, on which the file lies."""

    def made(scheduler, **more):
        device = tmp_path / "sys/devices/virtio0/block/vda"
        put(
            {
                "sys/devices/virtio0/block/vda/queue/scheduler": f"{scheduler}\n",
                "sys/devices/virtio0/block/vda/dev": "254:0\n",
                "sys/devices/virtio0/block/vda/vda1/partition": "1\n",
                **more,
            }
        )
        place = tmp_path / "sys/dev/block"
        place.mkdir(parents=True)
        (place / "254:1").symlink_to(device / "vda1")
        known = tmp_path / "sys/class/block"
        known.mkdir(parents=True)
        (known / "vda").symlink_to(device)
        (known / "vda1").symlink_to(device / "vda1")
        return tmp_path

    monkeypatch.setattr(cgroups, "_device", lambda path: "254:1" if path == "/store" else "")
    return made


def test_bfq_weighs(disk):
    assert cgroups.unweighed("/store", root=disk("none mq-deadline [bfq]")) == ("", "")


def test_other_schedulers_do_not(disk):
    reason, name = cgroups.unweighed("/store", root=disk("none [mq-deadline] bfq"))
    assert reason == "disk 'vda' below '/store' has the I/O scheduler 'mq-deadline'"
    assert name == "vda"


def test_iocost_weighs_where_it_is_switched_on(disk):
    qos = {"sys/fs/cgroup/io.cost.qos": "254:0 enable=1 ctrl=auto\n"}
    assert cgroups.unweighed("/store", root=disk("[none] mq-deadline", **qos)) == ("", "")


def test_iocost_of_another_disk_does_not_help(disk):
    qos = {"sys/fs/cgroup/io.cost.qos": "254:16 enable=1\n254:0 enable=0\n"}
    assert cgroups.unweighed("/store", root=disk("[none]", **qos))[1] == "vda"


def test_libvirt_would_write_bfqs_weight_where_bfq_could_be_chosen(disk):
    qos = {"sys/fs/cgroup/io.cost.qos": "254:0 enable=1\n"}
    assert cgroups.unweighed("/store", root=disk("[none] bfq", **qos))[1] == "vda"


def test_a_mapped_disk_is_as_good_as_those_below_it(disk, tmp_path):
    root = disk("[bfq]")
    mapped = tmp_path / "sys/devices/virtual/block/dm-0"
    (mapped / "slaves").mkdir(parents=True)
    (mapped / "slaves" / "vda1").symlink_to(tmp_path / "sys/class/block/vda1")
    (tmp_path / "sys/class/block/dm-0").symlink_to(mapped)
    os.remove(tmp_path / "sys/dev/block/254:1")
    (tmp_path / "sys/dev/block/254:1").symlink_to(mapped)
    assert cgroups.unweighed("/store", root=root) == ("", "")


def test_a_disk_that_cannot_be_told(disk):
    reason, name = cgroups.unweighed("/elsewhere", root=disk("[bfq]"))
    assert "cannot be told" in reason
    assert name == ""
