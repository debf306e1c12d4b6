"""What holds for every test; the pieces are under `plugins/`."""

from __future__ import annotations

pytest_plugins = (
    "tests.plugins.artifacts",
    "tests.plugins.daemon",
    "tests.plugins.isolation",
    "tests.plugins.skip_policy",
)
