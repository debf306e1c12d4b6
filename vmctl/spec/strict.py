"""What every mapping of a spec is: no unknown keys, and unchanged once it was read."""

from __future__ import annotations

from typing import ClassVar

from pydantic import BaseModel, ConfigDict


class Strict(BaseModel):
    """A mapping of a spec: no unknown keys, and unchanged once it was read."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    example: ClassVar[str] = ""
    """How such a mapping is written."""
    later: ClassVar[frozenset[str]] = frozenset()
    """Keys that are planned, and refused by name until they work."""
    synonyms: ClassVar[dict[str, str]] = {}
    """What other tools call a key, and what it is called here."""
