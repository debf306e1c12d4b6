"""Control groups of both versions, from recorded files."""

import pytest

from vmctl.host import confinement

V1 = {
    "proc/42/cgroup": "9:name=systemd:/\n7:blkio:/machine/qemu-1-web.libvirt-qemu\n"
    "4:memory:/machine/qemu-1-web.libvirt-qemu\n"
    "1:cpu,cpuacct:/machine/qemu-1-web.libvirt-qemu/emulator\n",
    "proc/self/mounts": "cgroup /sys/fs/cgroup/cpu cgroup rw,relatime,cpu,cpuacct 0 0\n"
    "cgroup /sys/fs/cgroup/memory cgroup rw,relatime,memory 0 0\n"
    "cgroup /sys/fs/cgroup/blkio cgroup rw,relatime,blkio 0 0\nbroken\n",
    "sys/fs/cgroup/cpu/machine/qemu-1-web.libvirt-qemu/cpu.shares": "2048\n",
    "sys/fs/cgroup/cpu/machine/qemu-1-web.libvirt-qemu/cpu.cfs_quota_us": "50000\n",
    "sys/fs/cgroup/cpu/machine/qemu-1-web.libvirt-qemu/cpu.cfs_period_us": "100000\n",
    "sys/fs/cgroup/memory/machine/qemu-1-web.libvirt-qemu/memory.limit_in_bytes": (
        "9223372036854771712\n"
    ),
    "sys/fs/cgroup/blkio/machine/qemu-1-web.libvirt-qemu/blkio.bfq.weight": "100\n",
}
SLICE = "machine.slice/machine-qemu\\x2d1\\x2dweb.scope"
V2 = {
    "proc/42/cgroup": f"0::/{SLICE}/libvirt/emulator\n",
    "proc/self/mounts": "cgroup2 /sys/fs/cgroup cgroup2 rw,nosuid 0 0\n",
    f"sys/fs/cgroup/{SLICE}/cpu.weight": "200\n",
    f"sys/fs/cgroup/{SLICE}/cpu.max": "max 100000\n",
    f"sys/fs/cgroup/{SLICE}/memory.max": "3221225472\n",
    f"sys/fs/cgroup/{SLICE}/io.max": "8:0 riops=100\n8:16 riops=200\n",
}


@pytest.fixture
def host(tmp_path):
    def made(files):
        for name, content in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)
        return confinement.of(42, root=tmp_path)

    return made


def test_version_1(host):
    found = host(V1)
    assert found.version == "v1"
    assert found.groups["cpu"] == "/machine/qemu-1-web.libvirt-qemu"
    assert found.groups["cpuacct"] == found.groups["cpu"]
    assert "name=systemd" not in found.groups
    assert (found.cpu_weight, found.cpu_quota, found.memory_limit) == (200, 50.0, None)
    assert found.limits["blkio.bfq.weight"] == "100"


def test_version_2(host):
    found = host(V2)
    assert found.version == "v2"
    assert found.groups == {"unified": f"/{SLICE}"}
    assert (found.cpu_weight, found.cpu_quota, found.memory_limit) == (200, None, 3 << 30)
    assert found.limits["io.max"] == "8:0 riops=100; 8:16 riops=200"


def test_the_weight_of_io(host):
    assert host(V1).io_weight == 100
    assert host(V2).io_weight is None
    path = f"sys/fs/cgroup/{SLICE}/io.bfq.weight"
    assert host({**V2, path: "default 300\n8:0 500\n"}).io_weight == 300


def test_threads_say_where_they_may_run(host):
    row = "Name:\tqemu\nCpus_allowed_list:\t{}\n"
    same = {f"proc/42/task/{thread}/status": row.format("0-1") for thread in (42, 43)}
    assert host(same).processors == "0-1"
    assert host({**same, "proc/42/task/44/status": row.format("3")}).processors == "0-1 and 3"
    assert host(same).shown("cpu.max") == ""


def test_files_are_shown_with_their_content(host):
    found = host(V1)
    wanted = "cpu.cfs_quota_us 50000, cpu.cfs_period_us 100000"
    assert found.shown("cpu.max", "cpu.cfs_quota_us", "cpu.cfs_period_us") == wanted


def test_under_systemd_some_limits_are_one_group_below(host):
    below = f"sys/fs/cgroup/{SLICE}/libvirt"
    found = host(
        {
            **V2,
            f"{below}/cpu.weight": "100\n",
            f"{below}/cpu.max": "50000 100000\n",
            f"{below}/memory.max": "max\n",
        }
    )
    assert (found.cpu_weight, found.cpu_quota, found.memory_limit) == (200, 50.0, 3 << 30)


def test_both_at_once(host):
    both = {**V1, "proc/self/mounts": V1["proc/self/mounts"] + V2["proc/self/mounts"]}
    assert host(both).version == "v1 and v2 (hybrid)"


def test_namespaces_of_ones_own(host, tmp_path):
    for process, namespace in (("42", "mnt:[2]"), ("self", "mnt:[1]")):
        place = tmp_path / "proc" / process / "ns"
        place.mkdir(parents=True)
        (place / "mnt").symlink_to(namespace)
        (place / "net").symlink_to("net:[7]")
    found = host(V2)
    assert found.namespaces["mnt"] is True
    assert found.namespaces["net"] is False
    assert found.namespaces["user"] is None


def test_a_process_that_is_gone(host):
    found = host({})
    assert (found.version, found.groups, found.cpu_weight) == ("", {}, None)


def test_a_guests_process_is_found_by_its_uuid(tmp_path):
    uuid = "156b8e57-8ca1-42a3-ab4f-eed8ba4cf06a"
    for pid, words in ((7, ["qemu", "-uuid", "other"]), (9, ["qemu", "-uuid", uuid, "-no-hpet"])):
        place = tmp_path / "proc" / str(pid)
        place.mkdir(parents=True)
        (place / "cmdline").write_bytes("\0".join(words).encode() + b"\0")
    (tmp_path / "proc" / "self").mkdir()
    assert confinement.qemu_of(uuid, root=tmp_path) == 9
    assert confinement.qemu_of("none", root=tmp_path) is None
