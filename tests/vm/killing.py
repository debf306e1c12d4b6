"""Deaths by SIGKILL at a point of a command, and what must be right afterwards."""

from __future__ import annotations

import itertools
import pathlib
import subprocess
import sys
from collections.abc import Iterator

from tests.vm.conftest import PATIENCE, Site

KILLER = pathlib.Path(__file__).with_name("killer.py")
MOST = 200
"""More changes than a command makes; a walk ends when a run was not killed any more."""


def killed(site: Site, when: int, moment: str, *words: str) -> bool:
    """Run vmctl with a death at a point; returns False when it lived to its end."""
    done = subprocess.run(
        [sys.executable, str(KILLER), str(when), moment, *words],
        env={**site.env, "PYTHONPATH": str(pathlib.Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode in (0, -9), done.stderr
    return done.returncode != 0


def points(every: bool, some: int = 5, most: int = 1) -> Iterator[tuple[int, str]]:
    """Yield where to die: at each of `most` points where `every` asks for them, else of `some`.

    Right after one is about right before the next, so that one of the two is enough.
    """
    moments = itertools.cycle(("before", "after"))
    return zip(range(1, MOST, most if every else some), moments, strict=False)


def rubbish(site: Site) -> list[str]:
    """Return half-written files anywhere in the store."""
    return [str(path) for path in (site.home / "machines").rglob(".tmp-*")]
