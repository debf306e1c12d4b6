"""Who signed the checksums: the publisher, somebody else, or nobody."""

from __future__ import annotations

import dataclasses
import pathlib
import subprocess
from collections.abc import Iterator

import pytest

from tests.images import publisher as publishing
from tests.images.publisher import Publisher
from tests.images.pull import trial
from tests.images.pull.trial import DISK, NAME, SUMS
from vmctl import errors
from vmctl.images import pins, pull
from vmctl.store.layout import Layout


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
    trial.offer(publisher, disk)
    publisher.put(f"{SUMS}.gpg", by.sign(publisher.files[SUMS].content))


def signed_recipe(publisher: Publisher, keyring: object, **more: str) -> None:
    signature = {"signature": publisher.url(f"{SUMS}.gpg"), "keyrings": f"['{keyring}']"}
    trial.recipe(publisher, **(signature | more))


def test_a_good_signature(
    layout: Layout, publisher: Publisher, disks: list[bytes], signers: list[Signer]
) -> None:
    right = signers[0]
    signed_recipe(publisher, right.keyring)
    offer_signed(publisher, disks[0], right)
    trial.ensure(layout)
    pin = pins.read(layout, publisher.url(DISK))
    assert pin is not None
    assert "right@example.org" in pin.signer
    assert pull.remarks(layout, NAME) == ("", "")
    offer_signed(publisher, disks[1], right)
    newer, made = trial.renew(layout)
    assert made, "the publisher signed the change"
    assert pathlib.Path(newer.disk).read_bytes() == disks[1]


def test_a_good_signature_makes_http_safe(
    layout: Layout, disks: list[bytes], signers: list[Signer]
) -> None:
    with publishing.published() as plain:
        signed_recipe(plain, signers[0].keyring)
        offer_signed(plain, disks[0], signers[0])
        assert trial.ensure(layout).present
        signed_recipe(plain, "/nowhere/keyring.gpg", user="other2")
        with pytest.raises(errors.HostError, match="cannot be checked"):
            trial.renew(layout)


def test_a_bad_signature(
    layout: Layout, publisher: Publisher, disks: list[bytes], signers: list[Signer]
) -> None:
    signed_recipe(publisher, signers[0].keyring)
    offer_signed(publisher, disks[0], signers[0])
    publisher.files[SUMS].content += b"\n"
    with pytest.raises(errors.RefusedError, match="is bad: somebody changed") as caught:
        trial.ensure(layout)
    assert caught.value.exit_code == 7
    assert not publisher.asked(DISK)


def test_a_signature_of_somebody_else(
    layout: Layout, publisher: Publisher, disks: list[bytes], signers: list[Signer]
) -> None:
    signed_recipe(publisher, signers[0].keyring)
    offer_signed(publisher, disks[0], signers[1])
    with pytest.raises(errors.RefusedError, match="does not have"):
        trial.ensure(layout)


@pytest.mark.parametrize("junk", [b"", b"junk", b"-----BEGIN PGP SIGNATURE-----\n\nAAAA\n"])
def test_what_is_no_signature(
    layout: Layout, publisher: Publisher, disks: list[bytes], signers: list[Signer], junk: bytes
) -> None:
    signed_recipe(publisher, signers[0].keyring)
    offer_signed(publisher, disks[0], signers[0])
    publisher.put(f"{SUMS}.gpg", junk)
    with pytest.raises(errors.RefusedError, match="has no signature"):
        trial.ensure(layout)


def test_a_missing_keyring_is_said_and_the_digest_pinned(
    layout: Layout, publisher: Publisher, disks: list[bytes], signers: list[Signer]
) -> None:
    missing = "/usr/share/keyrings/ubuntu-nowhere-keyring.gpg"
    signed_recipe(publisher, missing)
    offer_signed(publisher, disks[0], signers[0])
    assert trial.ensure(layout).present
    text, hint = pull.remarks(layout, NAME)
    assert "was not checked: no keyring" in text
    assert hint == "Install the package ubuntu-keyring."
    done = trial.vmctl("image", "pull", NAME)
    assert "was not checked" in done.stderr
    offer_signed(publisher, disks[1], signers[0])
    with pytest.raises(errors.RefusedError, match="No signature"):
        trial.renew(layout)


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
    trial.recipe(publisher, **keys)
    publisher.put(SUMS, right.clearsign(listed.encode()))
    assert trial.ensure(layout).present
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
            trial.renew(layout)
    publisher.put(SUMS, forged)
    with pytest.raises(errors.RefusedError, match="has no signature"):
        trial.renew(layout)
    publisher.put(SUMS, wrong.clearsign(forged))
    with pytest.raises(errors.RefusedError, match="does not have"):
        trial.renew(layout)
