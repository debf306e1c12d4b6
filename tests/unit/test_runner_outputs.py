"""Files that a run leaves: what cannot be written is refused before anything is started."""

from __future__ import annotations

import os
import pathlib

import pytest

from vmctl import errors
from vmctl.runner import outputs


@pytest.mark.parametrize("replaced", [True, False])
def test_what_cannot_be_written_is_refused(tmp_path: pathlib.Path, replaced: bool) -> None:
    (tmp_path / "file").touch()
    for path, says in (
        (f"{tmp_path}", "it is a directory"),
        (f"{tmp_path}/none/x", "there is no directory"),
        (f"{tmp_path}/file/x", "there is no directory"),
        (f"{tmp_path}/{'x' * 300}/x", "there is no directory"),
    ):
        with pytest.raises(errors.HostError, match=says):
            outputs.require(path, "report", replaced=replaced)
    for path in ("new", "file"):
        outputs.require(f"{tmp_path}/{path}", "report", replaced=replaced)
    assert sorted(os.listdir(tmp_path)) == ["file"]


def test_a_right_that_is_missing_is_seen(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setattr(os, "access", lambda path, _: os.fspath(path) != f"{tmp_path}")
    # A file that is written anew needs no right to its directory; one that is replaced does.
    outputs.require(f"{tmp_path}/file", "serial log", replaced=False)
    for path, replaced in (("file", True), ("new", True), ("new", False)):
        with pytest.raises(errors.HostError, match="no right"):
            outputs.require(f"{tmp_path}/{path}", "report", replaced=replaced)


def test_a_device_or_a_link_stays_what_it_is(tmp_path: pathlib.Path) -> None:
    (tmp_path / "link").symlink_to("target")
    (tmp_path / "null").symlink_to("/dev/null")
    for name in ("link", "null", "plain"):
        outputs.require(f"{tmp_path}/{name}", "report", replaced=True)
        outputs.write(f"{tmp_path}/{name}", "it\n")
    assert (tmp_path / "target").read_text() == "it\n"
    assert (tmp_path / "plain").read_text() == "it\n"
    assert (tmp_path / "link").is_symlink() and (tmp_path / "null").is_symlink()
