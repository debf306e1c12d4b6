"""The seed's ISO image as other programs read it."""

from __future__ import annotations

import os
import pathlib
import subprocess
import time

import pytest

from vmctl.images import seed

FILES = {
    "user-data": os.urandom(100_000),
    "meta-data": b"instance-id: x\n",
    "network-config": b"{}\n",
    "vendor-data": b"#cloud-config\n{}\n",
}


def read(image: pathlib.Path, name: str) -> bytes:
    done = subprocess.run(
        ["isoinfo", "-R", "-i", image, "-x", f"/{name}"], capture_output=True, check=True
    )
    return done.stdout


@pytest.fixture
def image(tmp_path: pathlib.Path) -> pathlib.Path:
    path = tmp_path / "seed.iso"
    path.write_bytes(seed.iso(FILES))
    return path


@pytest.mark.parametrize("name", FILES)
def test_every_file_reads_back(image: pathlib.Path, name: str) -> None:
    assert read(image, name) == FILES[name]


def test_the_label_is_the_one_that_cloud_init_looks_for(image: pathlib.Path) -> None:
    done = subprocess.run(
        ["blkid", "-p", "-o", "export", image], capture_output=True, text=True, check=True
    )
    assert "LABEL=CIDATA" in done.stdout
    assert "TYPE=iso9660" in done.stdout


def test_the_same_files_are_the_same_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    before = seed.iso(FILES)
    try:
        monkeypatch.setenv("TZ", "Asia/Tokyo")
        time.tzset()
        monkeypatch.setattr(time, "time", lambda: 2_000_000_000.0)
        assert seed.iso(dict(reversed(FILES.items()))) == before
    finally:
        monkeypatch.undo()
        time.tzset()
    assert seed.iso({**FILES, "user-data": b"other"}) != before


@pytest.mark.parametrize("size", [0, 1, 2047, 2048, 2049, 1 << 20])
def test_every_length_reads_back(tmp_path: pathlib.Path, size: int) -> None:
    data = os.urandom(size)
    path = tmp_path / "seed.iso"
    path.write_bytes(seed.iso({"meta-data": b"", "user-data": data}))
    assert read(path, "user-data") == data
