"""Machines on images that are pulled, from a publisher of this host, when they are first needed."""

from __future__ import annotations

import concurrent.futures
import json
import os
import pathlib
import subprocess
from collections.abc import Iterator

import pytest
import trustme

from tests.images import publisher as publishing
from tests.images.publisher import Publisher
from tests.vm.conftest import Site
from tests.vm.test_local_image import NOT_BOOTABLE, bootable, qcow2, sha256

pytestmark = pytest.mark.vm

__all__ = ["bootable"]

DISK = "/images/disk.qcow2"


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def publisher(authority: trustme.CA) -> Iterator[Publisher]:
    with publishing.published(authority) as made:
        yield made


@pytest.fixture
def env(authority: trustme.CA, tmp_path: pathlib.Path) -> dict[str, str]:
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    return {
        "SSL_CERT_FILE": str(tmp_path / "ca.pem"),
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
        "XDG_CONFIG_HOME": str(tmp_path / "config"),
        "no_proxy": "127.0.0.1",
    }


def spec(site: Site, image: str, text: str) -> tuple[str, str]:
    name = site.name("pull")
    path = site.specs / f"{name}.yaml"
    path.write_text(f"name: {name}\nproject: {name}\nmemory: 256MiB\nimage: {image}\n{text}")
    return str(path), name


def backing(site: Site, name: str) -> str:
    overlay = site.home / "machines" / name / "root.qcow2"
    words = ["qemu-img", "info", "-U", "--output=json", overlay]
    done = subprocess.run(words, check=True, capture_output=True, timeout=60)
    return str(json.loads(done.stdout)["backing-filename"])


def test_an_image_of_a_recipe_is_pulled_by_up_and_boots(
    site: Site, bootable: pathlib.Path, publisher: Publisher, env: dict[str, str]
) -> None:
    image = bootable.with_suffix(".pulled.qcow2")
    words = ["qemu-img", "convert", "-c", "-f", "raw", "-O", "qcow2", bootable, image]
    subprocess.run(words, check=True, timeout=120)
    content = image.read_bytes()
    url = publisher.put(DISK, content)
    sums = publisher.put("/images/SHA256SUMS", f"{sha256(image)} *disk.qcow2\n".encode())
    recipes = pathlib.Path(env["XDG_CONFIG_HOME"], "vmctl", "images")
    recipes.mkdir(parents=True)
    recipe = f"t-pulled-{os.getpid()}"
    (recipes / f"{recipe}.yaml").write_text(
        f"name: {recipe}\nbuilder: pull\nurl: {url}\nchecksums: {sums}\nchecksum_kind: sha256\n"
        "format: qcow2\ndrivers: [virtio, ahci, ide, e1000, e1000e]\nlogin: root\n"
        'ready: {pattern: "^vmctl-tiny: ready", timeout: 1m}\n'
    )
    path, name = spec(site, recipe, "accel: tcg\ndevices: virtio\n")
    planned = site.run("up", "--dry-run", path, **env)
    assert not publisher.requests, planned.out
    told = site.run("up", path, **env).err
    assert "pull image" in told
    assert "disk vda virtio_blk" in site.run("logs", name, **env).out
    base = pathlib.Path(backing(site, name))
    assert base.read_bytes() == content
    assert base.is_relative_to(site.home / "images")
    site.run("up", path, **env)
    assert publisher.sent(DISK) == len(content)
    site.run("down", "-y", name, **env)
    assert base.read_bytes() == content


def test_an_address_is_pulled_once_for_several_machines(
    site: Site, publisher: Publisher, env: dict[str, str], tmp_path: pathlib.Path
) -> None:
    disk = qcow2(tmp_path / "disk.qcow2", "0x61")
    url = publisher.put(DISK, disk.read_bytes(), pace=0.01)
    image = f"{{url: '{url}', sha256: {sha256(disk)}, format: qcow2}}"
    specs = [spec(site, image, NOT_BOOTABLE) for _ in range(3)]
    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda one: site.run("up", one[0], **env), specs))
    assert publisher.sent(DISK) == disk.stat().st_size
    bases = {backing(site, name) for _, name in specs}
    assert bases == {str(site.home / "images" / sha256(disk) / "disk.qcow2")}
    assert site.status(specs[0][1])["state"] == "running"


def test_what_cannot_be_pulled_leaves_nothing(
    site: Site, publisher: Publisher, env: dict[str, str], tmp_path: pathlib.Path
) -> None:
    disk = qcow2(tmp_path / "disk.qcow2", "0x62")
    url = publisher.put(DISK, disk.read_bytes())
    wrong = f"{{url: '{url}', sha256: {'0' * 64}, format: qcow2}}"
    path, name = spec(site, wrong, NOT_BOOTABLE)
    before = sorted(os.listdir(site.home / "images"))
    done = site.run("up", path, status=7, **env)
    said = " ".join(done.err.split())
    assert f"its sha256 is '{sha256(disk)}', and the spec says '{'0' * 64}'" in said
    gone = f"{{url: '{url}x', sha256: {'0' * 64}, format: qcow2}}"
    path, _ = spec(site, gone, NOT_BOOTABLE)
    assert "status 404" in site.run("up", path, status=3, **env).err
    path, _ = spec(site, wrong, NOT_BOOTABLE)
    untrusting = env | {"SSL_CERT_FILE": "/dev/null"}
    assert "not trusted" in " ".join(site.run("up", path, status=7, **untrusting).err.split())
    assert sorted(os.listdir(site.home / "images")) == before
    assert not (site.home / "machines" / name).exists()
