"""Pulls images from a publisher of this host: verified, once for all who ask, resumed."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import hashlib
import json
import os
import pathlib
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest
import trustme

from tests.images import publisher as publishing
from tests.images.publisher import File, Handler, Publisher
from vmctl import errors
from vmctl.deadline import Deadline
from vmctl.images import build, catalog, download, partial, pins, pull, recipes, web
from vmctl.machine.model import DiskFormat, Image
from vmctl.spec import problems
from vmctl.store.layout import Layout

QCOW2 = DiskFormat.QCOW2
DISK = "/cloud/latest/trial-amd64.qcow2"
SUMS = "/cloud/latest/SHA512SUMS"
NAME = "trial"


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def disks(tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    """Two qcow2 images of some MiB."""
    directory = tmp_path_factory.mktemp("disks")
    found = []
    for number in range(2):
        raw, image = directory / f"{number}.raw", directory / f"{number}.qcow2"
        with raw.open("wb") as stream:
            stream.write(os.urandom(4 << 20))
            stream.truncate(32 << 20)
        words = ["qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, image]
        subprocess.run(words, check=True, timeout=60)
        found.append(image.read_bytes())
    return found


@pytest.fixture
def publisher(authority: trustme.CA) -> Iterator[Publisher]:
    with publishing.published(authority) as made:
        yield made


@pytest.fixture(autouse=True)
def surroundings(
    authority: trustme.CA, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("VMCTL_HOME", str(tmp_path / "store"))
    monkeypatch.setattr(download, "_TRIES", 2)


@pytest.fixture
def layout(tmp_path: pathlib.Path) -> Layout:
    return Layout(tmp_path / "store")


def recipe(publisher: Publisher, **more: str) -> None:
    """Write a recipe of the user's own."""
    keys = {
        "name": NAME,
        "builder": "pull",
        "url": publisher.url(DISK),
        "checksums": publisher.url(SUMS),
        "format": "qcow2",
        "cloud_init": "true",
        "user": "trial",
        "drivers": "[virtio, ahci]",
        "ready": "{when: ssh, timeout: 2m}",
    } | more
    recipes.own_directory().mkdir(parents=True, exist_ok=True)
    text = "".join(f"{key}: {value}\n" for key, value in keys.items() if value)
    (recipes.own_directory() / f"{NAME}.yaml").write_text(text)


def offer(publisher: Publisher, disk: bytes, **how: object) -> None:
    """Publish a disk and its checksums."""
    how = {"etag": f'"{publishing.sha256(disk)[:8]}"', **how}
    publisher.put(DISK, disk, **how)
    other = "ab" * 64
    listed = f"{other}  trial-arm64.qcow2\n{hashlib.sha512(disk).hexdigest()}  trial-amd64.qcow2\n"
    publisher.put(SUMS, listed.encode(), kind="text/plain")


def ensure(layout: Layout, progress: build.Progress = lambda *_: None) -> Image:
    return build.ensure(layout, NAME, Deadline.after(60), progress)


def renew(layout: Layout, *, consent: bool = False, force: bool = False) -> tuple[Image, bool]:
    def quiet(*_: object) -> None:
        pass

    return build.renew(layout, NAME, Deadline.after(60), quiet, force=force, consent=consent)


def test_what_is_in_the_store(layout: Layout, publisher: Publisher, disks: list[bytes]) -> None:
    recipe(publisher)
    offer(publisher, disks[0])
    absent = catalog.find(layout, NAME)
    assert not absent.present
    assert absent.cloud_init
    image = ensure(layout)
    assert image.present
    assert image == catalog.find(layout, NAME)
    assert pathlib.Path(image.disk).read_bytes() == disks[0]
    assert (image.disk_format, image.size) == (QCOW2, 32 << 20)
    assert (image.cloud_init, image.user, image.ready_when) == (True, "trial", "ssh")
    assert image.kernel == ""
    assert image.drivers == {"virtio", "ahci"}
    assert pathlib.Path(image.disk).stat().st_mode & 0o777 == 0o644
    assert os.listdir(layout.images) == [image.digest]
    assert build.damage(layout, image.digest) == []
    facts = catalog.facts(layout, image.digest)
    assert facts is not None
    assert facts["source"] == publisher.url(DISK)
    assert facts["published"] == f"sha512:{hashlib.sha512(disks[0]).hexdigest()}"
    assert not list(partial.directory().glob("*.part"))
    assert ensure(layout) == image
    assert len(publisher.requests) == 2


def test_an_image_that_is_there_is_looked_at_and_not_fetched(
    layout: Layout, publisher: Publisher, disks: list[bytes]
) -> None:
    recipe(publisher)
    offer(publisher, disks[0])
    image = ensure(layout)
    assert renew(layout) == (image, False)
    assert len(publisher.asked(SUMS)) == 2
    assert len(publisher.asked(DISK)) == 1


def test_a_change_that_nobody_signed_needs_consent(
    layout: Layout, publisher: Publisher, disks: list[bytes]
) -> None:
    recipe(publisher)
    offer(publisher, disks[0])
    image = ensure(layout)
    offer(publisher, disks[1])
    with pytest.raises(errors.RefusedError, match="has changed: it was 'sha512:") as caught:
        renew(layout)
    assert caught.value.exit_code == 7
    assert f"vmctl image pull --renew {NAME}" in caught.value.hint
    assert catalog.find(layout, NAME) == image
    assert len(publisher.asked(DISK)) == 1, "refused before it is fetched"
    newer, made = renew(layout, consent=True)
    assert made
    assert pathlib.Path(newer.disk).read_bytes() == disks[1]
    assert pathlib.Path(image.disk).read_bytes() == disks[0], "machines may be made from it"
    assert renew(layout) == (newer, False)


def test_the_pin_outlives_the_image(
    layout: Layout, publisher: Publisher, disks: list[bytes]
) -> None:
    recipe(publisher)
    offer(publisher, disks[0])
    image = ensure(layout)
    catalog.record_path(layout, NAME).unlink()
    subprocess.run(["rm", "-r", layout.image(image.digest)], check=True)
    offer(publisher, disks[1])
    with pytest.raises(errors.RefusedError, match="has changed"):
        ensure(layout)
    offer(publisher, disks[0])
    assert ensure(layout) == image


def test_without_checksums_the_first_pull_decides(
    layout: Layout, publisher: Publisher, disks: list[bytes]
) -> None:
    recipe(publisher, checksums="")
    offer(publisher, disks[0])
    image = ensure(layout)
    assert renew(layout) == (image, False)
    offer(publisher, disks[1])
    with pytest.raises(errors.RefusedError, match="has changed"):
        renew(layout)
    newer, made = renew(layout, consent=True)
    assert made
    assert pathlib.Path(newer.disk).read_bytes() == disks[1]
    assert publisher.sent(DISK) == 2 * len(disks[0]) + len(disks[1]), "kept when it was refused"
    assert not publisher.asked(SUMS)


def test_other_keys_of_a_recipe_cost_no_download(
    layout: Layout, publisher: Publisher, disks: list[bytes]
) -> None:
    recipe(publisher)
    offer(publisher, disks[0])
    image = ensure(layout)
    recipe(publisher, user="other")
    assert not catalog.find(layout, NAME).present
    before = len(publisher.requests)
    other = ensure(layout)
    assert other.user == "other"
    assert other.digest != image.digest
    assert pathlib.Path(other.disk).read_bytes() == disks[0]
    assert len(publisher.requests) == before, "not even a look"


def test_content_that_is_not_what_was_published_is_refused(
    layout: Layout, publisher: Publisher, disks: list[bytes]
) -> None:
    recipe(publisher)
    offer(publisher, disks[0])
    publisher.files[DISK].content = disks[1]
    with pytest.raises(errors.RefusedError, match="is not what it should be") as caught:
        ensure(layout)
    assert caught.value.exit_code == 7
    for shown in (disks[0], disks[1]):
        assert hashlib.sha512(shown).hexdigest() in caught.value.message
    assert not list(partial.directory().glob("*.part")), "of no use to anybody"
    assert os.listdir(layout.images) == []
    assert not catalog.record_path(layout, NAME).exists()
    offer(publisher, disks[1])
    assert ensure(layout).present


def test_pieces_of_two_files_are_fetched_once_more(
    layout: Layout, publisher: Publisher, disks: list[bytes]
) -> None:
    """A publisher replaces the file and keeps its times and tag."""
    recipe(publisher)
    offer(publisher, disks[0], etag='"same"', pace=0.02)
    with pytest.raises(RuntimeError):
        ensure(layout, stop_at(1 << 20))
    offer(publisher, disks[1], etag='"same"')
    assert pathlib.Path(ensure(layout).disk).read_bytes() == disks[1]
    assert [bool(seen.range) for seen in publisher.asked(DISK)] == [False, True, False]


def stop_at(count: int) -> build.Progress:
    def progress(_: str, done: int, __: int) -> None:
        if done >= count:
            raise RuntimeError("enough")

    return progress


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"", "has no sha512"),
        (b"<html><body>Log in</body></html>", "web page"),
        (b"ab" * 64 + b"  trial-amd64.qcow2\n" + b"cd" * 64 + b"  trial-amd64.qcow2\n", "2 diff"),
        (b"ab" * 32 + b"  trial-amd64.qcow2\n", "has no sha512"),
    ],
)
def test_checksums_of_no_use_are_refused(
    layout: Layout, publisher: Publisher, disks: list[bytes], text: bytes, words: str
) -> None:
    recipe(publisher)
    offer(publisher, disks[0])
    publisher.put(SUMS, text)
    with pytest.raises(errors.RefusedError, match=words):
        ensure(layout)
    assert not publisher.asked(DISK)


@pytest.mark.parametrize("kind", ["backing", "raw", "text"])
def test_the_gate_judges_what_was_published_too(
    layout: Layout, publisher: Publisher, kind: str, tmp_path: pathlib.Path
) -> None:
    path = tmp_path / "bad.qcow2"
    if kind == "backing":
        words = ["qemu-img", "create", "-q", "-u", "-f", "qcow2", "-F", "raw", "-b", "/etc/passwd"]
        subprocess.run([*words, path, "1M"], check=True)
    else:
        path.write_bytes(bytes(1 << 20) if kind == "raw" else b"just text")
    recipe(publisher)
    offer(publisher, path.read_bytes())
    with pytest.raises(errors.RefusedError) as caught:
        ensure(layout)
    assert publisher.url(DISK) in caught.value.message
    assert "cache" not in caught.value.message
    assert os.listdir(layout.images) == []


def test_http_needs_more_than_checksums(
    layout: Layout, publisher: Publisher, disks: list[bytes]
) -> None:
    offer(publisher, disks[0])
    with publishing.published() as plain:
        offer(plain, disks[0])
        recipe(publisher, url=plain.url(DISK))
        with pytest.raises(errors.HostError, match="over http"):
            ensure(layout)
        recipe(publisher, checksums=plain.url(SUMS))
        with pytest.raises(errors.RefusedError, match="not https"):
            ensure(layout)
        recipe(publisher, url=plain.url(DISK), checksums="")
        with pytest.raises(errors.RefusedError, match="not https"):
            ensure(layout)
        assert not plain.requests


ASK = """
import sys
from vmctl.deadline import Deadline
from vmctl.images import build
from vmctl.store.layout import Layout
image = build.ensure(Layout.default(), sys.argv[1], Deadline.after(120), lambda *_: None)
print(image.disk)
"""


def test_one_download_for_sixteen_who_ask(
    layout: Layout, publisher: Publisher, disks: list[bytes]
) -> None:
    recipe(publisher)
    offer(publisher, disks[0], pace=0.01)
    words = [sys.executable, "-c", ASK, NAME]
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        done = list(
            pool.map(
                lambda _: subprocess.run(words, check=False, capture_output=True, timeout=180),
                range(16),
            )
        )
    assert [each.returncode for each in done] == [0] * 16, done[0].stderr
    assert len({each.stdout for each in done}) == 1
    assert [seen.sent for seen in publisher.asked(DISK)] == [len(disks[0])]
    assert len(publisher.asked(SUMS)) == 1
    assert len(os.listdir(layout.images)) == 1


def test_a_killed_pull_goes_on_where_it_was(
    layout: Layout, publisher: Publisher, disks: list[bytes]
) -> None:
    recipe(publisher)
    offer(publisher, disks[0], pace=0.05)
    with subprocess.Popen([sys.executable, "-c", ASK, NAME]) as child:
        deadline = time.monotonic() + 60
        while publisher.sent(DISK) < 1 << 20 and time.monotonic() < deadline:
            time.sleep(0.01)
        child.send_signal(signal.SIGKILL)
    (part,) = partial.directory().glob("*.part")
    kept = part.stat().st_size
    assert 0 < kept < len(disks[0])
    publisher.files[DISK].pace = 0
    assert pathlib.Path(ensure(layout).disk).read_bytes() == disks[0]
    again = publisher.asked(DISK)[-1]
    assert (again.range, again.sent) == (f"bytes={kept}-", len(disks[0]) - kept)
    assert len(os.listdir(layout.images)) == 1


@pytest.mark.parametrize("when", range(6))
def test_killed_anywhere_the_same_command_ends_well(
    layout: Layout, publisher: Publisher, disks: list[bytes], when: int
) -> None:
    """Die at the n-th word of what is going on after the download."""
    script = ASK.replace(
        "lambda *_: None",
        "lambda what, *_: words.append(what) or len(words) == int(sys.argv[2]) and "
        "os.kill(os.getpid(), 9)",
    ).replace("import sys", "import os, sys\nwords = []")
    recipe(publisher)
    offer(publisher, disks[0])
    subprocess.run([sys.executable, "-c", script, NAME, str(when + 1)], timeout=60, check=False)
    image = ensure(layout)
    assert pathlib.Path(image.disk).read_bytes() == disks[0]
    assert os.listdir(layout.images) == [image.digest]


def test_a_cache_on_another_disk(
    layout: Layout, publisher: Publisher, disks: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    place = pathlib.Path("/dev/shm") / f"vmctl-test-{os.getpid()}"
    if not os.access(place.parent, os.W_OK) or place.parent.stat().st_dev == os.stat("/").st_dev:
        pytest.skip("this host has no second file system to write to")
    monkeypatch.setenv("XDG_CACHE_HOME", str(place))
    try:
        recipe(publisher)
        offer(publisher, disks[0])
        assert pathlib.Path(ensure(layout).disk).read_bytes() == disks[0]
        assert not list(partial.directory().glob("*.part"))
    finally:
        subprocess.run(["rm", "-rf", place], check=True)


def address(layout: Layout, publisher: Publisher, disk: bytes) -> Image:
    url, digest = publisher.url(DISK), publishing.sha256(disk)
    return pull.ensure_address(layout, url, digest, QCOW2, lambda *_: None)


def test_an_address_with_its_digest(
    layout: Layout, publisher: Publisher, disks: list[bytes]
) -> None:
    offer(publisher, disks[0])
    url, digest = publisher.url(DISK), publishing.sha256(disks[0])
    absent = pull.find_address(layout, url, digest, QCOW2)
    assert not absent.present
    assert not layout.home.exists()
    image = address(layout, publisher, disks[0])
    assert image == pull.find_address(layout, url, digest, QCOW2)
    assert (image.digest, image.name, image.size) == (digest, "trial-amd64.qcow2", 32 << 20)
    assert pathlib.Path(image.disk).read_bytes() == disks[0]
    address(layout, publisher, disks[0])
    assert len(publisher.asked(DISK)) == 1
    listed = json.loads(vmctl("image", "list", "--json").stdout)
    assert url in [each.get("source") for each in listed]
    with pytest.raises(errors.RefusedError, match="is not what it should be"):
        address(layout, publisher, disks[1])
    assert os.listdir(layout.images) == [digest]


def test_an_address_of_http_will_do_with_a_digest(layout: Layout, disks: list[bytes]) -> None:
    with publishing.published() as plain:
        offer(plain, disks[0])
        with pytest.raises(errors.RefusedError, match="not https"):
            pull.pull_address(layout, plain.url(DISK), QCOW2, lambda *_: None)
        assert address(layout, plain, disks[0]).present


def test_an_address_alone_is_remembered(
    layout: Layout, publisher: Publisher, disks: list[bytes]
) -> None:
    offer(publisher, disks[0])
    url = publisher.url(DISK)

    def pulled(*, consent: bool = False) -> tuple[Image, bool]:
        return pull.pull_address(layout, url, QCOW2, lambda *_: None, consent=consent)

    image, new = pulled()
    assert new
    assert image.digest == publishing.sha256(disks[0])
    assert pulled() == (image, False)
    offer(publisher, disks[1])
    assert pulled() == (image, False), "what is there stays as it is"
    subprocess.run(["rm", "-r", layout.image(image.digest)], check=True)
    with pytest.raises(errors.RefusedError, match="has changed"):
        pulled()
    newer, new = pulled(consent=True)
    assert (newer.digest, new) == (publishing.sha256(disks[1]), True)
    known = pins.read(layout, url)
    assert known is not None
    assert known.sha256 == newer.digest


ADDRESS = """
import sys
from vmctl.images import pull
from vmctl.machine.model import DiskFormat
from vmctl.store.layout import Layout
image = pull.ensure_address(
    Layout.default(), sys.argv[1], sys.argv[2], DiskFormat.QCOW2, lambda *_: None)
print(image.disk)
"""


def test_one_download_of_an_address_for_many(
    layout: Layout, publisher: Publisher, disks: list[bytes]
) -> None:
    offer(publisher, disks[0], pace=0.01)
    words = [sys.executable, "-c", ADDRESS, publisher.url(DISK), publishing.sha256(disks[0])]
    with concurrent.futures.ThreadPoolExecutor(6) as pool:
        done = list(
            pool.map(
                lambda _: subprocess.run(words, check=False, capture_output=True, timeout=180),
                range(6),
            )
        )
    assert [each.returncode for each in done] == [0] * 6, done[0].stderr
    assert publisher.sent(DISK) == len(disks[0])


def vmctl(*words: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "vmctl", *map(str, words)]
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=120)


def test_the_command(publisher: Publisher, disks: list[bytes]) -> None:
    recipe(publisher)
    offer(publisher, disks[0])
    done = vmctl("image", "pull", NAME)
    assert done.returncode == 0, done.stderr
    assert "pull image" in done.stderr
    done = vmctl("image", "pull", NAME, "--json")
    assert json.loads(done.stdout)["pulled"] is False
    offer(publisher, disks[1])
    done = vmctl("image", "pull", NAME)
    assert done.returncode == 7
    assert (
        f"hint: If the publisher says that there is a new version: vmctl image pull --renew {NAME}"
        in " ".join(done.stderr.split())
    )
    assert vmctl("image", "pull", "--renew", NAME).returncode == 0
    url = publisher.url(DISK)
    done = vmctl("image", "pull", url)
    assert done.returncode == 0, done.stderr
    digest = publishing.sha256(disks[1])
    assert done.stdout == f"image: {{url: '{url}', sha256: {digest}, format: qcow2}}\n"
    for words, status in [
        (("tiny",), 2),
        (("nothing",), 3),
        ((NAME, "--format", "raw"), 2),
        (("https://127.0.0.1/x.img",), 2),
        (("file:///etc/passwd", "--format", "raw"), 2),
        ((url, "--sha256", "12"), 2),
        ((url, "--sha256", "0" * 64), 7),
        ((url + "x", "--format", "raw"), 3),
    ]:
        done = vmctl("image", "pull", *words)
        assert done.returncode == status, (words, done.stderr)
        assert "Traceback" not in done.stderr


def test_ctrl_c_keeps_what_has_come(publisher: Publisher, disks: list[bytes]) -> None:
    recipe(publisher)
    offer(publisher, disks[0], pace=0.1)
    command = [sys.executable, "-m", "vmctl", "image", "pull", NAME]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as child:
        deadline = time.monotonic() + 60
        while publisher.sent(DISK) < 1 << 20 and time.monotonic() < deadline:
            time.sleep(0.01)
        begun = time.monotonic()
        child.send_signal(signal.SIGINT)
        _, said = child.communicate(timeout=30)
    assert time.monotonic() - begun < 5
    assert child.returncode == 130, said
    (part,) = partial.directory().glob("*.part")
    kept = part.stat().st_size
    publisher.files[DISK].pace = 0
    assert vmctl("image", "pull", NAME).returncode == 0
    assert publisher.asked(DISK)[-1].range == f"bytes={kept}-"


def test_recipes_of_ones_own_are_read_with_care(
    layout: Layout, publisher: Publisher, disks: list[bytes]
) -> None:
    recipe(publisher)
    path = recipes.own_directory() / f"{NAME}.yaml"
    assert NAME in recipes.names()
    path.chmod(0o666)
    with pytest.raises(errors.RefusedError, match="others can change"):
        recipes.read(NAME)
    recipe(publisher, builder="tiny")
    path.chmod(0o600)
    with pytest.raises(errors.UsageError, match="can only pull"):
        recipes.read(NAME)
    recipe(publisher, name="another")
    with pytest.raises(errors.UsageError, match="calls its image 'another'"):
        recipes.read(NAME)
    recipe(publisher, url="file:///etc/passwd")
    with pytest.raises(problems.SpecError) as caught:
        recipes.read(NAME)
    assert "must be an address" in caught.value.problems[0].message
    recipe(publisher, url="")
    with pytest.raises(errors.UsageError, match="has no url"):
        ensure(layout)
    (recipes.own_directory() / "Not a name.yaml").write_text("x")
    assert "Not a name" not in recipes.names()


@dataclasses.dataclass
class Signer:
    """A key pair of gpg's, in a directory of its own."""

    home: pathlib.Path
    keyring: pathlib.Path

    def gpg(self, *words: object, stdin: bytes = b"") -> bytes:
        command = ["gpg", "--homedir", self.home, "--batch", "--quiet", *words]
        return subprocess.run(
            command, input=stdin, capture_output=True, check=True, timeout=120
        ).stdout

    def sign(self, text: bytes) -> bytes:
        return self.gpg("--detach-sign", stdin=text)

    def clearsign(self, text: bytes) -> bytes:
        return self.gpg("--clearsign", stdin=text)


def signer(directory: pathlib.Path, name: str) -> Signer:
    home = directory / f"gpg-{name}"
    home.mkdir(mode=0o700)
    made = Signer(home, directory / f"{name}.gpg")
    made.gpg("--passphrase", "", "--quick-generate-key", f"{name}@example.org", "ed25519", "sign")
    made.keyring.write_bytes(made.gpg("--export"))
    return made


@pytest.fixture(scope="module")
def signers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Signer]]:
    # A short path: gpg's agent listens on a socket there.
    directory = tmp_path_factory.mktemp("g")
    made = [signer(directory, name) for name in ("right", "wrong")]
    yield made
    for each in made:
        subprocess.run(["gpgconf", "--homedir", each.home, "--kill", "gpg-agent"], check=False)


def offer_signed(publisher: Publisher, disk: bytes, by: Signer) -> None:
    offer(publisher, disk)
    publisher.put(f"{SUMS}.gpg", by.sign(publisher.files[SUMS].content))


def signed_recipe(publisher: Publisher, keyring: object, **more: str) -> None:
    signature = {"signature": publisher.url(f"{SUMS}.gpg"), "keyrings": f"['{keyring}']"}
    recipe(publisher, **(signature | more))


def test_a_good_signature(
    layout: Layout, publisher: Publisher, disks: list[bytes], signers: list[Signer]
) -> None:
    right = signers[0]
    signed_recipe(publisher, right.keyring)
    offer_signed(publisher, disks[0], right)
    ensure(layout)
    pin = pins.read(layout, publisher.url(DISK))
    assert pin is not None
    assert "right@example.org" in pin.signer
    assert pull.remarks(layout, NAME) == ("", "")
    offer_signed(publisher, disks[1], right)
    newer, made = renew(layout)
    assert made, "the publisher signed the change"
    assert pathlib.Path(newer.disk).read_bytes() == disks[1]


def test_a_good_signature_makes_http_safe(
    layout: Layout, disks: list[bytes], signers: list[Signer]
) -> None:
    with publishing.published() as plain:
        signed_recipe(plain, signers[0].keyring)
        offer_signed(plain, disks[0], signers[0])
        assert ensure(layout).present
        signed_recipe(plain, "/nowhere/keyring.gpg", user="other2")
        with pytest.raises(errors.HostError, match="cannot be checked"):
            renew(layout)


def test_a_bad_signature(
    layout: Layout, publisher: Publisher, disks: list[bytes], signers: list[Signer]
) -> None:
    signed_recipe(publisher, signers[0].keyring)
    offer_signed(publisher, disks[0], signers[0])
    publisher.files[SUMS].content += b"\n"
    with pytest.raises(errors.RefusedError, match="is bad: somebody changed") as caught:
        ensure(layout)
    assert caught.value.exit_code == 7
    assert not publisher.asked(DISK)


def test_a_signature_of_somebody_else(
    layout: Layout, publisher: Publisher, disks: list[bytes], signers: list[Signer]
) -> None:
    signed_recipe(publisher, signers[0].keyring)
    offer_signed(publisher, disks[0], signers[1])
    with pytest.raises(errors.RefusedError, match="does not have"):
        ensure(layout)


@pytest.mark.parametrize("junk", [b"", b"junk", b"-----BEGIN PGP SIGNATURE-----\n\nAAAA\n"])
def test_what_is_no_signature(
    layout: Layout, publisher: Publisher, disks: list[bytes], signers: list[Signer], junk: bytes
) -> None:
    signed_recipe(publisher, signers[0].keyring)
    offer_signed(publisher, disks[0], signers[0])
    publisher.put(f"{SUMS}.gpg", junk)
    with pytest.raises(errors.RefusedError, match="has no signature"):
        ensure(layout)


def test_a_missing_keyring_is_said_and_the_digest_pinned(
    layout: Layout, publisher: Publisher, disks: list[bytes], signers: list[Signer]
) -> None:
    missing = "/usr/share/keyrings/ubuntu-nowhere-keyring.gpg"
    signed_recipe(publisher, missing)
    offer_signed(publisher, disks[0], signers[0])
    assert ensure(layout).present
    text, hint = pull.remarks(layout, NAME)
    assert "was not checked: no keyring" in text
    assert hint == "Install the package ubuntu-keyring."
    done = vmctl("image", "pull", NAME)
    assert "was not checked" in done.stderr
    offer_signed(publisher, disks[1], signers[0])
    with pytest.raises(errors.RefusedError, match="No signature"):
        renew(layout)


def test_checksums_that_carry_their_signature(
    layout: Layout, publisher: Publisher, disks: list[bytes], signers: list[Signer]
) -> None:
    """As Fedora's: BSD style, clearsigned, and with a keyring in letters."""
    right, wrong = signers
    armoured = right.keyring.with_suffix(".asc")
    armoured.write_bytes(right.gpg("--armor", "--export"))
    publisher.put(DISK, disks[0])
    digest = publishing.sha256(disks[0])
    listed = f"# trial-amd64.qcow2: {len(disks[0])} bytes\nSHA256 (trial-amd64.qcow2) = {digest}\n"
    keys = {"checksum_kind": "sha256", "keyrings": f"['{armoured}']"}
    recipe(publisher, **keys)
    publisher.put(SUMS, right.clearsign(listed.encode()))
    assert ensure(layout).present
    pin = pins.read(layout, publisher.url(DISK))
    assert pin is not None
    assert pin.signer
    # What stands around the signed part says nothing.
    forged = f"SHA256 (trial-amd64.qcow2) = {publishing.sha256(disks[1])}\n".encode()
    empty = right.clearsign(b"# nothing\n")
    for text in (forged + empty, empty + forged):
        publisher.put(SUMS, text)
        publisher.put(DISK, disks[1])
        with pytest.raises(errors.RefusedError):
            renew(layout)
    publisher.put(SUMS, forged)
    with pytest.raises(errors.RefusedError, match="has no signature"):
        renew(layout)
    publisher.put(SUMS, wrong.clearsign(forged))
    with pytest.raises(errors.RefusedError, match="does not have"):
        renew(layout)


def test_a_server_that_stalls_ends_the_command(
    layout: Layout, publisher: Publisher, disks: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    def behave(handler: Handler, file: File) -> None:
        handler.answer(200, file.content[:1000], {"ETag": file.etag}, length=len(file.content))
        time.sleep(15)

    monkeypatch.setattr(web, "STALL_SECONDS", 1.0)
    recipe(publisher)
    offer(publisher, disks[0])
    publisher.files[DISK].behave = behave
    with pytest.raises(errors.WaitTimeoutError, match="has stalled"):
        ensure(layout)
    publisher.files[DISK].behave = None
    assert ensure(layout).present
    assert publisher.asked(DISK)[-1].range == "bytes=1000-"


def test_another_kind_of_checksum_is_no_change(
    layout: Layout, publisher: Publisher, disks: list[bytes]
) -> None:
    recipe(publisher)
    offer(publisher, disks[0])
    image = ensure(layout)
    recipe(publisher, checksum_kind="sha256")
    listed = f"{publishing.sha256(disks[0])} *trial-amd64.qcow2\n"
    publisher.put(SUMS, listed.encode())
    again, _ = renew(layout)
    assert pathlib.Path(again.disk).read_bytes() == disks[0]
    assert image.present
    recipe(publisher)
    offer(publisher, disks[1])
    with pytest.raises(errors.RefusedError, match="has changed"):
        renew(layout)


def test_the_library_for_http_is_loaded_only_to_fetch() -> None:
    script = (
        "import sys; import vmctl.cli.image, vmctl.images.pull, vmctl.lifecycle.up; "
        "sys.exit('urllib3' in sys.modules or 'http.client' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
