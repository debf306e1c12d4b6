"""Files of a person's: written whole, and never over another by accident."""

from __future__ import annotations

import errno
import os
import pathlib

import pytest

from vmctl.store import plain_files


@pytest.mark.parametrize("there", ["", "name: web", "another\n"])
def test_what_is_there_stays(tmp_path: pathlib.Path, there: str) -> None:
    path = tmp_path / "web.yaml"
    path.write_text(there)
    with pytest.raises(FileExistsError):
        plain_files.write(path, "name: web\n")
    assert path.read_text() == there
    assert os.listdir(tmp_path) == ["web.yaml"]


def test_a_link_to_nowhere_is_there_as_well(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "web.yaml"
    path.symlink_to(tmp_path / "nowhere")
    with pytest.raises(FileExistsError):
        plain_files.write(path, "name: web\n")
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize("replace", [False, True])
def test_it_is_readable_as_any_other(tmp_path: pathlib.Path, replace: bool) -> None:
    path = tmp_path / "web.yaml"
    before = os.umask(0o027)
    try:
        plain_files.write(path, "name: web\n", replace=replace)
    finally:
        os.umask(before)
    assert (path.read_text(), path.stat().st_mode & 0o777) == ("name: web\n", 0o640)
    assert os.listdir(tmp_path) == ["web.yaml"]


def test_somebody_else_is_quicker(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "web.yaml"
    real = os.fsync

    def late(descriptor: int) -> None:
        path.write_text("theirs\n")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", late)
    with pytest.raises(FileExistsError):
        plain_files.write(path, "ours\n")
    assert path.read_text() == "theirs\n"


def test_a_file_system_without_links(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def link(source: str, target: pathlib.Path) -> None:
        raise OSError(errno.EPERM, "Operation not permitted", source, None, str(target))

    monkeypatch.setattr(os, "link", link)
    plain_files.write(tmp_path / "web.yaml", "name: web\n")
    assert (tmp_path / "web.yaml").read_text() == "name: web\n"
    assert os.listdir(tmp_path) == ["web.yaml"]
