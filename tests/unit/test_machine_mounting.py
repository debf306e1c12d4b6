"""Which directories a guest may have, by which device, and what the guest is told to do."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import shutil
import subprocess

import pytest

from tests import replay
from vmctl.host.facts import HostFacts
from vmctl.machine import compare, effects, mounting
from vmctl.machine.model import Machine, Mode, Mount, Share
from vmctl.machine.xml import domain
from vmctl.spec.model import MountSpec
from vmctl.spec.problems import SpecError

ROOT_ON_SYSTEM = mounting.Means(session=False, root=True, virtiofsd=True)


@pytest.fixture
def place(tmp_path: pathlib.Path) -> pathlib.Path:
    for name in ("src", "out", "outer/inner"):
        (tmp_path / name).mkdir(parents=True)
    return tmp_path


def facts(*programs: str, uid: int = 0) -> HostFacts:
    found = replay.host("software-kvm-no-flags")
    return dataclasses.replace(
        found,
        user=dataclasses.replace(found.user, uid=uid),
        programs={name: f"/usr/bin/{name}" for name in programs},
    )


def machine(
    place: pathlib.Path, mounts: str, *sets: str, host: HostFacts | None = None, **around: bool
) -> Machine:
    spec = place / "vmctl.yaml"
    spec.write_text(f"name: web\nimage: tiny\nmemory: 128MiB\nmounts: {mounts}\n")
    told = replay.surroundings(host or facts("virtiofsd"), **around)
    sets = sets or ("accel=tcg", "devices=virtio")
    return replay.machines(spec, told, *sets, allow_outside=False)[0]


def refusal(place: pathlib.Path, mounts: str, *sets: str) -> str:
    with pytest.raises(SpecError) as caught:
        machine(place, mounts, *sets)
    (problem,) = caught.value.problems
    return f"{problem.line}: {problem.message} {problem.suggestion}"


@pytest.mark.parametrize(
    ("means", "writable", "share"),
    [
        (ROOT_ON_SYSTEM, True, Share.VIRTIOFS),
        (ROOT_ON_SYSTEM, False, Share.NINE_P),
        (dataclasses.replace(ROOT_ON_SYSTEM, session=True), True, Share.NINE_P),
        (dataclasses.replace(ROOT_ON_SYSTEM, root=False), True, Share.NINE_P),
        (dataclasses.replace(ROOT_ON_SYSTEM, virtiofsd=False), True, Share.NINE_P),
    ],
)
def test_share(means: mounting.Means, writable: bool, share: Share) -> None:
    assert means.share(writable=writable) is share


def test_read_only_is_the_default_and_the_hosts_own_doing(place: pathlib.Path) -> None:
    made = machine(place, "[{host: ./src, guest: /src}]")
    assert made.mounts == (Mount(host=str(place / "src"), guest="/src"),)
    (element,) = domain.write(made).root.iterfind("devices/filesystem")
    assert element.find("readonly") is not None
    assert element.get("accessmode") == "squash"


def test_writable_is_virtiofs_with_shared_memory(place: pathlib.Path) -> None:
    root = domain.write(machine(place, "[{host: ./out, guest: /out, writable: true}]")).root
    (element,) = root.iterfind("devices/filesystem")
    driver = element.find("driver")
    assert driver is not None
    assert driver.get("type") == "virtiofs"
    assert element.find("readonly") is None
    access = root.find("memoryBacking/access")
    assert access is not None
    assert access.get("mode") == "shared"


def test_no_shared_memory_without_virtiofs(place: pathlib.Path) -> None:
    root = domain.write(machine(place, "[{host: ./src, guest: /src}]")).root
    assert root.find("memoryBacking") is None


def test_session_never_has_virtiofs(place: pathlib.Path) -> None:
    made = machine(place, "[{host: ./out, guest: /out, writable: true}]", session=True)
    assert [mount.share for mount in made.mounts] == [Share.NINE_P]


def test_outer_places_come_first(place: pathlib.Path) -> None:
    mounts = (
        "[{host: ./src, guest: /a/b}, {host: ./outer/inner, guest: /a-z}, "
        "{host: ./outer, guest: /a}]"
    )
    assert [mount.guest for mount in machine(place, mounts).mounts] == ["/a", "/a/b", "/a-z"]


def test_round_trip(place: pathlib.Path) -> None:
    made = machine(
        place,
        "[{host: ./src, guest: '/with space/ü'}, {host: ./out, guest: /out, writable: true}]",
    )
    back = domain.read(domain.write(made).text())
    assert back.machine == made
    assert (back.missing, back.unknown) == ((), ())


def test_libvirts_own_additions_are_no_drift(place: pathlib.Path) -> None:
    made = machine(place, "[{host: ./out, guest: /out, writable: true}]")
    text = domain.write(made).text()
    added = "<binary path='/usr/lib/qemu/virtiofsd' /><alias name='ua-mount0' />"
    text = text.replace('<alias name="ua-mount0" />', added)
    assert domain.read(text).unknown == ()


def test_a_filesystem_of_other_hands_is_drift(place: pathlib.Path) -> None:
    made = machine(place, "[{host: ./src, guest: /src}]")
    foreign = (
        "<filesystem type='mount'><source dir='/etc' /><target dir='mine' /></filesystem></devices>"
    )
    back = domain.read(domain.write(made).text().replace("</devices>", foreign))
    assert back.machine.mounts == made.mounts
    assert any("filesystem" in path for path in back.unknown)


def test_change_waits_for_the_next_start(place: pathlib.Path) -> None:
    before = machine(place, "[{host: ./src, guest: /src}]")
    after = machine(place, "[{host: ./out, guest: /src}, {host: ./src, guest: /two}]")
    found = compare.differences(before, after)
    assert [difference.path for difference in found] == ["mounts[/src].host", "mounts[/two]"]
    assert {difference.effect for difference in found} == {effects.Effect.NEXT_START}


@pytest.mark.parametrize("mode", ["full", "hardware"])
def test_modes_without_virtio_have_none(place: pathlib.Path, mode: str) -> None:
    spec = place / "vmctl.yaml"
    spec.write_text("name: web\nimage: tiny\nmounts: [{host: ./src, guest: /src}]\n")
    around = replay.surroundings(replay.host("kvm-intel-fine"))
    with pytest.raises(SpecError) as caught:
        replay.machines(spec, around, f"mode={mode}")
    assert f"mode '{mode}' has none" in str(caught.value.problems[0].message)
    assert "vmctl cp" in caught.value.problems[0].suggestion


def test_never_writable(place: pathlib.Path) -> None:
    (place / "link").symlink_to(place)
    assert "own directory" in refusal(place, "[{host: ., guest: /all, writable: true}]")
    assert "own directory" in refusal(place, "[{host: ./link, guest: /all, writable: true}]")


def test_never_writable_where_a_base_or_a_links_target_lies(place: pathlib.Path) -> None:
    mounts = "mounts: [{host: ./out, guest: /out, writable: true}]\n"
    (place / "out" / "base.yaml").write_text("image: tiny\n")
    (place / "based.yaml").write_text(f"base: out/base.yaml\nname: web\n{mounts}")
    (place / "out" / "real.yaml").write_text(f"name: web\nimage: tiny\n{mounts}")
    (place / "linked.yaml").symlink_to("out/real.yaml")
    for name in ("based", "linked"):
        around = replay.surroundings(facts("virtiofsd"))
        with pytest.raises(SpecError) as caught:
            replay.machines(place / f"{name}.yaml", around, "accel=tcg", "devices=virtio")
        assert "own directory" in caught.value.problems[0].message


def test_outside_is_refused_whichever_way(place: pathlib.Path) -> None:
    (place / "link").symlink_to("/etc")
    for host in ("./link", "/etc", "..", "/"):
        assert "outside" in refusal(place, f"[{{host: {host}, guest: /e}}]")


def test_root_directory_is_never_writable(place: pathlib.Path) -> None:
    spec = place / "vmctl.yaml"
    spec.write_text("name: web\nimage: tiny\nmounts: [{host: /, guest: /host, writable: true}]\n")
    with pytest.raises(SpecError) as caught:
        replay.machines(
            spec, replay.surroundings(facts("virtiofsd")), "accel=tcg", "devices=virtio"
        )
    assert caught.value.problems[0].message == "'/' is never mounted writable"


def objections(host: str, store: str, *, writable: bool = False) -> list[str]:
    wanted = [MountSpec(host=host, guest="/x", writable=writable)]
    return [one.message for one in mounting.objections(wanted, Mode.TCG_VIRTIO, store)]


def test_the_store_is_never_shared(place: pathlib.Path) -> None:
    store = place / "home" / "store"
    (store / "machines").mkdir(parents=True)
    (place / "alias").symlink_to(store)
    real = str(store)
    for named in (real, str(place / "alias")):
        assert "own store" in objections(real, named)[0]
        assert "own store" in objections(f"{real}/machines", named, writable=True)[0]
        assert "holds vmctl's own store" in objections(str(place), named, writable=True)[0]
        assert objections(str(place), named) == []
    assert objections(f"{real}-other", real, writable=True) == []


def test_tags_are_short_and_stay(place: pathlib.Path) -> None:
    one = Mount(host="/a", guest="/src")
    assert one.tag == dataclasses.replace(one, host="/b", writable=True).tag
    assert one.tag != dataclasses.replace(one, guest="/src2").tag
    # 9p takes 31 bytes, virtiofs 36.
    assert len(one.tag) <= 31


def test_fstab_keeps_odd_names_in_one_field() -> None:
    line = mounting.fstab([Mount(host="/a", guest="/a b\\c/ü#1")])
    fields = line.split()
    assert fields[1] == "/a\\040b\\134c/ü\\0431"
    assert fields[2] == "9p"
    assert {"ro", "nofail", "nosuid", "nodev"} <= set(fields[3].split(","))
    assert len(fields) == 6


def test_nothing_for_cloud_init_without_mounts() -> None:
    assert mounting.cloud_config([]) == {}


# -- the script itself, run by a shell with the commands of a guest replaced ----------------------

FAKES = """
grep() {{ command grep "$@"; }}
modprobe() {{ echo "modprobe $*" >> {log}; {modprobe}; }}
chroot() {{ echo "chroot $*" >> {log}; {modprobe}; }}
systemctl() {{ echo "systemctl $*" >> {log}; }}
mount() {{ echo "mount $*" >> {log}; {mount}; }}
mkdir() {{ :; }}
"""


def played(
    tmp_path: pathlib.Path,
    mounts: list[Mount],
    *,
    fstab: str = "",
    mount: str = "true",
    modprobe: str = "true",
) -> tuple[int, str, str, str]:
    """Run the script on a guest's files in a directory; returns status, output, fstab and calls."""
    etc = tmp_path / "fstab"
    etc.write_text(fstab)
    (tmp_path / "mounts").write_text("vmctl-000000000000 /old 9p rw 0 0\n")
    (tmp_path / "filesystems").write_text("nodev\ttmpfs\n\text4\nnodev\t9p\n")
    log = tmp_path / "log"
    log.write_text("")
    text = mounting.guest_script(mounts)
    for real, fake in (
        ("/etc/fstab", etc),
        ("/proc/mounts", tmp_path / "mounts"),
        ("/proc/filesystems", tmp_path / "filesystems"),
    ):
        text = text.replace(real, str(fake))
    text = FAKES.format(log=log, mount=mount, modprobe=modprobe) + text
    shell = shutil.which("dash") or "sh"
    done = subprocess.run([shell, "-e"], input=text, capture_output=True, text=True, check=False)
    assert done.stderr == ""
    return done.returncode, done.stdout, etc.read_text(), log.read_text()


@pytest.mark.allow_process
def test_script_mounts_and_remembers(tmp_path: pathlib.Path) -> None:
    mounts = [Mount(host="/a", guest="/it's here/ü"), Mount(host="/b", guest="/b", writable=True)]
    status, said, fstab, calls = played(tmp_path, mounts, fstab="/dev/vda1 / ext4 defaults 0 1\n")
    assert (status, said) == (0, "")
    lines = fstab.splitlines()
    assert lines[0] == "/dev/vda1 / ext4 defaults 0 1"
    assert lines[1:] == ["# vmctl: mounts", *mounting.fstab(mounts).splitlines(), "# vmctl: end"]
    assert f"{mounts[0].tag} /it's here/ü" in calls
    again = played(tmp_path, mounts, fstab=fstab)
    assert again[2] == fstab


@pytest.mark.allow_process
def test_drivers_that_are_elsewhere_or_built_in(tmp_path: pathlib.Path) -> None:
    """A container's files have no drivers: those that init began with do. Nobody has to."""
    mount = Mount(host="/a", guest="/a")
    status, said, _, calls = played(tmp_path, [mount], modprobe="return 1")
    assert (status, said) == (0, "")
    assert "chroot /proc/1/root /sbin/modprobe -q 9p\n" in calls


@pytest.mark.allow_process
def test_script_takes_its_lines_out_again(tmp_path: pathlib.Path) -> None:
    before = "/dev/vda1 / ext4 defaults 0 1\n"
    fstab = played(tmp_path, [Mount(host="/a", guest="/a")], fstab=before)[2]
    assert fstab != before
    assert played(tmp_path, [], fstab=fstab)[2] == before


@pytest.mark.allow_process
def test_script_leaves_what_is_mounted(tmp_path: pathlib.Path) -> None:
    mount = Mount(host="/a", guest="/a")
    (tmp_path / "x").touch()
    text = mounting.guest_script([mount])
    (tmp_path / "mounts").write_text(f"{mount.tag} /a 9p ro 0 0\n")
    text = text.replace("/proc/mounts", str(tmp_path / "mounts"))
    text = text.replace("/etc/fstab", str(tmp_path / "none"))
    done = subprocess.run(
        ["sh"], input=f"mount() {{ exit 9; }}\n{text}", text=True, check=False, env=os.environ
    )
    assert done.returncode == 0


@pytest.mark.allow_process
@pytest.mark.parametrize(
    ("share", "reason"), [(Share.NINE_P, "no such tag"), (Share.VIRTIOFS, "no-driver")]
)
def test_script_says_what_failed(tmp_path: pathlib.Path, share: Share, reason: str) -> None:
    mount = Mount(host="/a", guest="/a", share=share)
    status, said, _, _ = played(tmp_path, [mount], mount="{ echo no such tag; false; }")
    assert status == 1
    assert said == f"{mounting.FAILED} {mount.tag} {reason}\n"
