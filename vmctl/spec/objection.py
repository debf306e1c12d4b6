"""A broken rule, before it is known where the key stands in the file."""

from __future__ import annotations

from typing import NamedTuple

from vmctl.spec import nodes


class Objection(NamedTuple):
    """A broken rule and the key to show for it."""

    location: nodes.Path
    message: str
    suggestion: str = ""
