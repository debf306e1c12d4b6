from __future__ import annotations

import hashlib
import pathlib
import re

import pytest

from vmctl import errors, process
from vmctl.deadline import Deadline
from vmctl.images import bootstrap, debian, debian_cache, distribution, packages, recipes
from vmctl.images.job import Product

NAME = "debian-12-min"


class Answers(packages.Apt):
    """Apt with answers that are known beforehand."""

    def __init__(self, plan: str, records: str, status: int = 0) -> None:
        super().__init__(lambda *_: None)
        self.plan, self.records, self.status = plan, records, status

    def run(
        self, argv: object, deadline: Deadline, cwd: pathlib.Path | None = None
    ) -> process.Completed:
        words = list(argv)  # type: ignore[call-overload]
        text = self.plan if words[0] == "apt-get" else self.records
        return process.Completed(tuple(words), self.status, text.encode(), b"E: broken")


PLAN = """Reading package lists...
Inst libc6 (2.36-9 Debian:12 [amd64]) []
Inst bash (5.2-2 Debian:12 [amd64])
Conf bash (5.2-2 Debian:12 [amd64])
"""
RECORDS = "\n\n".join(
    f"Package: {name}\nVersion: {version}\nSize: 1\nSHA256: {'0' * 64}\nFilename: pool/{name}.deb"
    for name, version in (("libc6", "2.36-9"), ("bash", "5.2-2"))
)


def test_system_is_what_apt_would_install_on_an_empty_disk() -> None:
    chosen = bootstrap.for_system(["bash"])(Answers(PLAN, RECORDS), Deadline.after(1))
    assert [(each.name, each.version) for each in chosen] == [
        ("bash", "5.2-2"),
        ("libc6", "2.36-9"),
    ]
    assert "Filename: pool/bash.deb" in chosen[0].record


@pytest.mark.parametrize(("plan", "status"), [("", 0), (PLAN, 100)])
def test_lists_that_lead_nowhere_are_the_hosts_lack(plan: str, status: int) -> None:
    with pytest.raises(errors.HostError, match="whole system") as caught:
        bootstrap.for_system(["bash"])(Answers(plan, RECORDS, status), Deadline.after(1))
    assert "/etc/apt" in caught.value.hint


def test_package_that_the_lists_do_not_describe_is_named() -> None:
    with pytest.raises(errors.HostError, match="'bash'"):
        bootstrap.for_system(["bash"])(Answers(PLAN, RECORDS.split("\n\n")[0]), Deadline.after(1))


def test_recipe_and_builder_mean_the_same_root() -> None:
    assert f"root=UUID={debian.ROOT} " in recipes.read(NAME).cmdline


def test_missing_programs_are_said_with_their_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "find", lambda name: None if name.startswith("m") else name)
    with pytest.raises(errors.HostError, match="'mmdebstrap'") as caught:
        bootstrap.require_programs([("mmdebstrap", "mmdebstrap"), ("mcopy", "mtools"), ("sh", "x")])
    assert caught.value.hint.endswith("apt install mmdebstrap mtools")


@pytest.mark.parametrize(
    ("text", "allowed"),
    [
        ("ID=debian\nVERSION_CODENAME=bookworm\n", True),
        ("ID=debian\nVERSION_CODENAME=trixie\n", False),
        ("ID=ubuntu\nID_LIKE=debian\nVERSION_CODENAME=noble\n", False),
        ("", False),
    ],
)
def test_only_the_release_itself_has_its_packages(
    tmp_path: pathlib.Path, text: str, allowed: bool
) -> None:
    file = tmp_path / "os-release"
    file.write_text(text)
    if allowed:
        distribution.require_suite("bookworm", file)
        return
    with pytest.raises(errors.HostError) as caught:
        distribution.require_suite("bookworm", file)
    assert "image: debian-12" in caught.value.hint


@pytest.fixture
def cached(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "kernel").write_bytes(b"kernel")
    product = Product({"kernel": tmp_path / "kernel"}, "1" * 64, {"kernel_release": "6.1"})
    debian_cache.keep(NAME, product)
    return tmp_path / "cache/vmctl/images"


def test_finished_image_is_taken_from_the_cache(
    cached: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    (tmp_path / "work").mkdir()
    product = debian_cache.take(NAME, "1" * 64, tmp_path / "work")
    assert product is not None
    assert product.files["kernel"].read_bytes() == b"kernel"
    assert product.facts == {"kernel_release": "6.1"}
    assert debian_cache.take(NAME, "2" * 64, tmp_path / "work") is None


@pytest.mark.parametrize("damage", ["file", "facts", "gone"])
def test_damaged_cache_is_not_believed(
    cached: pathlib.Path, tmp_path: pathlib.Path, damage: str
) -> None:
    (place,) = cached.iterdir()
    if damage == "file":
        (place / "kernel").write_bytes(b"other")
    elif damage == "facts":
        (place / "facts.json").write_text('{"files": 3}')
    else:
        (place / "kernel").unlink()
    assert debian_cache.take(NAME, "1" * 64, tmp_path) is None
    assert not place.exists()


def test_newer_image_takes_the_place_of_the_older(
    cached: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    (tmp_path / "kernel").write_bytes(b"newer")
    debian_cache.keep(NAME, Product({"kernel": tmp_path / "kernel"}, "3" * 64))
    assert [path.name for path in cached.iterdir()] == [f"{NAME}-{'3' * 64}"]


def test_cache_that_cannot_be_written_is_no_failure(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    debian_cache.keep(NAME, Product({}, "1" * 64))


def test_own_part_of_the_image_counts_for_the_fingerprint() -> None:
    names = {path for path, _ in recipes.files(NAME)}
    assert {"finish", "initrd/init", "root/usr/local/libexec/cloud-init-stages"} <= names
    assert re.fullmatch(r"[0-9a-f]{64}", recipes.fingerprint(NAME))
    assert recipes.fingerprint(NAME) != hashlib.sha256(b"").hexdigest()
