from __future__ import annotations

import pathlib

import pytest

from vmctl import errors
from vmctl.lifecycle.steps import Site
from vmctl.runner import berth, cold
from vmctl.store import home
from vmctl.store.layout import Layout


@pytest.mark.parametrize("problem", [errors.ConflictError("it is locked"), PermissionError("no")])
def test_what_cannot_be_removed_keeps_its_number(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, problem: Exception
) -> None:
    layout = Layout(tmp_path / "store")
    home.opened(layout)
    first = f"{berth.prefix(layout)}1"

    def free(_site: object, name: str, _worker: object) -> bool:
        if name == first:
            raise problem
        return True

    monkeypatch.setattr(berth, "_free", free)
    site = Site(connection=None, layout=layout)  # type: ignore[arg-type]
    with berth.held(site, cold.quietly("")) as name:
        assert name == f"{berth.prefix(layout)}2"
        assert berth.lives(layout, name) and not berth.lives(layout, first)


def test_what_fails_in_the_block_is_not_taken_for_a_name(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout = Layout(tmp_path / "store")
    home.opened(layout)
    site = Site(connection=None, layout=layout)  # type: ignore[arg-type]
    with pytest.raises(errors.ConflictError, match="mine"), berth.held(site, cold.quietly("")):
        raise errors.ConflictError("mine")
