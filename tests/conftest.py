"""What holds for every test; the pieces are under `plugins/`."""

from __future__ import annotations

import hypothesis

# Tests look at no clock: on a busy machine every bound is too short.
hypothesis.settings.register_profile("vmctl", deadline=None)
hypothesis.settings.load_profile("vmctl")

pytest_plugins = (
    "tests.plugins.artifacts",
    "tests.plugins.daemon",
    "tests.plugins.isolation",
    "tests.plugins.skip_policy",
)
