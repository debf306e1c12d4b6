from __future__ import annotations

import os
import pathlib

import pytest

from vmctl import errors
from vmctl.guest import copy


def test_a_file_that_vanishes_is_said(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "there").touch()
    listed = os.listdir

    def with_ghost(path: pathlib.Path) -> list[str]:
        return [*listed(path), "vanished"]

    monkeypatch.setattr(os, "listdir", with_ghost)
    with pytest.raises(errors.HostError, match=r"Cannot read '.*/vanished': No such file"):
        copy._Plan([tmp_path])
