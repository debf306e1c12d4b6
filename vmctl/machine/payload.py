"""What a spec has a guest do at its first boot: secret, and known elsewhere by its digests only."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import json
from typing import Any


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """A provision step; a script without `#!` is one for `/bin/sh -e`.

    `timeout` in seconds, TCG's patience not applied; 0 for the usual. `reboot` restarts the guest
    when the step is done.
    """

    name: str
    script: bytes
    user: str = "root"
    env: dict[str, str] = dataclasses.field(default_factory=dict)
    timeout: float = 0.0
    reboot: bool = False

    def as_dict(self) -> dict[str, Any]:
        """Return plain data, for JSON."""
        script = base64.b64encode(self.script).decode()
        return {
            "name": self.name,
            "script": script,
            "user": self.user,
            "env": self.env,
            "timeout": self.timeout,
            # Left out where it is not set: digests of steps are older than this key.
            **({"reboot": True} if self.reboot else {}),
        }


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Payload:
    """All of a spec that goes into a guest; `user_data` is None where the spec has no such file."""

    ssh_keys: tuple[str, ...] = ()
    cloud_init: dict[str, Any] | None = None
    user_data: bytes | None = None
    steps: tuple[Step, ...] = ()

    @property
    def ssh_keys_digest(self) -> str:
        """Sha256 (hex) of the user's own keys; empty where there are none."""
        return _digest(list(self.ssh_keys)) if self.ssh_keys else ""

    @property
    def cloud_init_digest(self) -> str:
        """Sha256 (hex) of `cloud_init`; empty where there is none."""
        return _digest(self.cloud_init) if self.cloud_init is not None else ""

    @property
    def user_data_digest(self) -> str:
        """Sha256 (hex) of the file; empty where there is none."""
        return hashlib.sha256(self.user_data).hexdigest() if self.user_data is not None else ""

    @property
    def steps_digest(self) -> str:
        """Sha256 (hex) over the steps with their environments; empty where there are none."""
        return _digest([step.as_dict() for step in self.steps]) if self.steps else ""

    def as_dict(self) -> dict[str, Any]:
        """Return plain data, for the private file in the store."""
        data = None if self.user_data is None else base64.b64encode(self.user_data).decode()
        return {
            "ssh_keys": list(self.ssh_keys),
            "cloud_init": self.cloud_init,
            "user_data": data,
            "steps": [step.as_dict() for step in self.steps],
        }

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Payload:
        """Return what `as_dict` wrote. Raises KeyError, TypeError and ValueError for other data."""
        written = data["user_data"]
        return cls(
            ssh_keys=tuple(data["ssh_keys"]),
            cloud_init=data["cloud_init"],
            user_data=None if written is None else base64.b64decode(written),
            steps=tuple(
                Step(**{**step, "script": base64.b64decode(step["script"])})
                for step in data["steps"]
            ),
        )


def _digest(data: Any) -> str:
    text = json.dumps(data, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
