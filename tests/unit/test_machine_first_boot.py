"""Who gets in, whether there is a seed, what starts the guest, and when it is ready."""

from __future__ import annotations

import pathlib

import pytest

from tests import replay
from vmctl.machine import compare
from vmctl.machine.effects import Effect
from vmctl.machine.model import Machine
from vmctl.machine.xml import domain
from vmctl.spec.problems import SpecError

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIC6I19JCrsT/bHQ7gzr0BoR8v7YVnXUWh47Nl5skD4YV"
OTHER = "AAAAC3NzaC1lZDI1NTE5AAAAIHcvVWKwUwmGp9wasrlmc9CqWdNMRvI682MjvDmY5kst"


@pytest.fixture
def resolved(tmp_path: pathlib.Path):  # type: ignore[no-untyped-def]
    def resolve(text: str, *sets: str) -> Machine:
        path = tmp_path / "vmctl.yaml"
        path.write_text(text)
        around = replay.surroundings(replay.host("kvm-intel-fine"))
        return replay.machines(path, around, *sets)[0]

    return resolve


def refusal(resolved, text: str):  # type: ignore[no-untyped-def]
    with pytest.raises(SpecError) as caught:
        resolved(text)
    return caught.value.problems[0]


DEBIAN = "name: web\nimage: debian-12-min\n"


def test_an_image_with_cloud_init_always_has_a_seed(resolved) -> None:  # type: ignore[no-untyped-def]
    machine = resolved(DEBIAN)
    assert (machine.user, machine.hostname) == ("debian", "web")
    assert machine.seed == "/var/lib/vmctl/machines/web/seed.iso"
    assert machine.ready.when == "ssh"
    assert resolved(f"{DEBIAN}user: dev\n").user == "dev"


def test_one_in_memory_has_none_and_knows_its_name_otherwise(resolved) -> None:  # type: ignore[no-untyped-def]
    machine = resolved("name: web\nimage: tiny\nhostname: inner\n")
    assert (machine.user, machine.seed, machine.hostname) == ("root", "", "inner")
    assert "vmctl.hostname=inner" in domain.write(machine).text()


@pytest.mark.parametrize(
    "line", ["user: dev", "cloud_init: {}", "user_data: ./x", f"ssh_keys: [{KEY}]"]
)
@pytest.mark.parametrize("image", ["tiny", "container"])
def test_what_only_cloud_init_does_is_refused_there(resolved, image, line) -> None:  # type: ignore[no-untyped-def]
    problem = refusal(resolved, f"name: web\nimage: {image}\n{line}\n")
    assert f"image '{image}' does not have" in problem.message
    assert problem.line == 3


def test_a_disk_of_unknown_content_gets_a_seed_when_asked(resolved) -> None:  # type: ignore[no-untyped-def]
    plain = resolved("name: web\nimage: distribution\n")
    assert (plain.user, plain.seed) == ("", "")
    asked = resolved(f"name: web\nimage: distribution\nssh_keys: [{KEY}]\n")
    assert (asked.user, bool(asked.seed)) == ("vmctl", True)


def test_keys_in_files_are_read(resolved, tmp_path) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / "keys").write_text(f"# mine\n{KEY} me\n\nssh-ed25519   {OTHER}\n")
    machine = resolved(f"{DEBIAN}ssh_keys: [./keys]\n")
    assert machine.payload is not None
    assert machine.payload.ssh_keys == (f"{KEY} me", f"ssh-ed25519 {OTHER}")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("-----BEGIN OPENSSH PRIVATE KEY-----\nx\n", "PRIVATE"),
        ("", "no public key"),
        ("hello\n", "must begin with"),
    ],
)
def test_files_that_hold_no_public_key(resolved, tmp_path, content, said) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / "keys").write_text(content)
    problem = refusal(resolved, f"{DEBIAN}ssh_keys: [./keys]\n")
    assert said in problem.message
    assert problem.line == 3


def test_files_that_are_not_there_or_too_long(resolved, tmp_path) -> None:  # type: ignore[no-untyped-def]
    assert "no file" in refusal(resolved, f"{DEBIAN}user_data: ./nothing\n").message
    (tmp_path / "long").write_bytes(bytes((1 << 20) + 1))
    assert "larger than 1024 KiB" in refusal(resolved, f"{DEBIAN}user_data: ./long\n").message
    (tmp_path / "place").mkdir()
    text = f"{DEBIAN}provision: [{{run: ./place}}]\n"
    assert "not a regular file" in refusal(resolved, text).message


def test_a_private_key_in_a_spec_is_not_shown_again(resolved) -> None:  # type: ignore[no-untyped-def]
    text = f'{DEBIAN}ssh_keys: ["-----BEGIN RSA PRIVATE KEY----- s3cr3t"]\n'
    problem = refusal(resolved, text)
    assert problem.line == 3
    assert "s3cr3t" not in problem.message + problem.source_line + problem.suggestion


def test_what_starts_the_guest(resolved) -> None:  # type: ignore[no-untyped-def]
    disk = resolved(DEBIAN)
    assert disk.image is not None
    assert not disk.image.kernel
    assert disk.boot_order == ("disk",)
    kernel = resolved(f"{DEBIAN}boot: kernel\n")
    assert kernel.image is not None
    assert kernel.image.kernel
    assert kernel.boot_order == ()
    assert kernel.disks[0].base == replay.DEBIAN.disk
    firmware = resolved(f"{DEBIAN}boot: kernel\nfirmware: uefi\n")
    assert firmware.image is not None
    assert firmware.image.kernel == replay.DEBIAN.efi_kernel
    assert "no disk" in refusal(resolved, "name: web\nimage: tiny\nboot: disk\n").message
    text = "name: web\nimage: distribution\nboot: kernel\n"
    assert "no kernel apart" in refusal(resolved, text).message
    change, *_order = compare.differences(disk, kernel)
    assert (str(change), change.effect) == ("boot: disk -> kernel", Effect.NEXT_START)


def test_a_guest_in_memory_is_not_restarted_between_steps(resolved) -> None:  # type: ignore[no-untyped-def]
    steps = "provision: [{script: a}, {script: b, reboot: true}]\n"
    problem = refusal(resolved, f"name: web\nimage: tiny\n{steps}")
    assert "'tiny' lives in memory" in problem.message
    assert (problem.line, problem.column) == (3, 46)
    for image in ("debian-12-min", "container"):
        machine = resolved(f"name: web\nimage: {image}\n{steps}")
        assert [step.reboot for step in machine.payload.steps] == [False, True]


def test_a_container_has_no_boot_loader(resolved) -> None:  # type: ignore[no-untyped-def]
    problem = refusal(resolved, "name: web\nimage: container\nboot: disk\n")
    assert "its disk has no boot loader" in problem.message
    assert "leave it out" in problem.suggestion
    assert problem.line == 3
    machine = resolved("name: web\nimage: container\n")
    assert machine.image is not None
    assert machine.image.kernel == replay.CONTAINER.kernel
    firmware = resolved("name: web\nimage: container\nfirmware: uefi\n")
    assert firmware.image is not None
    assert firmware.image.kernel == replay.CONTAINER.efi_kernel


@pytest.mark.parametrize(
    ("text", "when"),
    [
        (f"{DEBIAN}cloud_init: {{}}\n", "cloud-init"),
        (f"{DEBIAN}cloud_init: {{}}\nready: {{pattern: x}}\n", "console"),
        (f"{DEBIAN}cloud_init: {{}}\nready: {{when: ssh}}\n", "ssh"),
        (f"{DEBIAN}ready: {{when: agent}}\n", "agent"),
        (f"{DEBIAN}networks: []\n", "cloud-init"),
        (f"{DEBIAN}networks: [{{kind: bridge, bridge: br0}}]\n", "cloud-init"),
        (f"{DEBIAN}networks: [{{kind: bridge, bridge: br0, address: 10.0.0.2/24}}]\n", "ssh"),
        ("name: web\nimage: tiny\n", "console"),
        ("name: web\nimage: distribution\n", "running"),
        ("name: web\nimage: distribution\nuser: dev\ncloud_init: {}\n", "cloud-init"),
    ],
)
def test_when_it_is_ready(resolved, text, when) -> None:  # type: ignore[no-untyped-def]
    assert resolved(text).ready.when == when


@pytest.mark.parametrize(
    "text",
    [
        f"{DEBIAN}mode: full\nready: {{when: agent}}\n",
        f"{DEBIAN}networks: []\nready: {{when: ssh}}\n",
        "name: web\nimage: tiny\nready: {when: cloud-init}\n",
        "name: web\nimage: distribution\nready: {when: ssh}\n",
        "name: web\nimage: distribution\nready: {when: console}\n",
    ],
)
def test_what_cannot_be_waited_for_is_refused(resolved, text) -> None:  # type: ignore[no-untyped-def]
    refusal(resolved, text)


def test_what_is_carried_out_once_takes_a_new_machine(resolved) -> None:  # type: ignore[no-untyped-def]
    before = resolved(f"{DEBIAN}cloud_init: {{packages: [a]}}\n")
    changes = {
        "cloud_init": f"{DEBIAN}cloud_init: {{packages: [b]}}\n",
        "hostname": f"{DEBIAN}cloud_init: {{packages: [a]}}\nhostname: x\n",
        "user": f"{DEBIAN}cloud_init: {{packages: [a]}}\nuser: x\n",
        "ssh_keys": f"{DEBIAN}cloud_init: {{packages: [a]}}\nssh_keys: [{KEY}]\n",
    }
    for key, text in changes.items():
        (change,) = compare.differences(before, resolved(text))
        assert (change.path, change.effect) == (key, Effect.RE_CREATION)
    tiny = "name: web\nimage: tiny\n"
    (change,) = compare.differences(resolved(tiny), resolved(f"{tiny}hostname: x\n"))
    assert change.effect is Effect.NEXT_START


def test_a_key_on_the_kernels_command_line_is_no_drift(resolved) -> None:  # type: ignore[no-untyped-def]
    machine = resolved("name: web\nimage: tiny\n")
    text = domain.write(machine, ssh_key="c3NoLWVkMjU1MTkg").text()
    assert "vmctl.key=c3NoLWVkMjU1MTkg" in text
    back = domain.read(text)
    assert (back.machine, back.missing, back.unknown) == (machine, (), ())


def test_the_seed_is_read_back_and_is_no_disk(resolved) -> None:  # type: ignore[no-untyped-def]
    text = f"{DEBIAN}disks: [{{name: data, size: 1GiB}}]\ncdroms: [./a.iso]\n"
    for mode in ("full", "paravirt"):
        machine = resolved(text, f"mode={mode}")
        back = domain.read(domain.write(machine).text())
        assert back.machine == machine
        assert [disk.name for disk in back.machine.disks] == ["root", "data"]
