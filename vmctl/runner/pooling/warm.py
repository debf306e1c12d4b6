"""`vmctl run --warm`: a pool of one machine, made at its first use and put to rest when idle."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator

from vmctl import errors
from vmctl.lifecycle import targets
from vmctl.runner.pooling import pool, pool_client, pools
from vmctl.runner.pooling.pool_client import Claim
from vmctl.store.layout import Layout

IDLE_SECONDS = 600.0
"""How long the machine stays in memory after a job; later ones load it from disk again."""

_TRIES = 3


def name_of(source: str, sets: tuple[str, ...], uri: str) -> str:
    """Return the name of the pool behind what a person asks for."""
    meant = os.path.abspath(source) if targets.is_file(source) else source
    text = json.dumps([meant, sorted(sets), uri])
    return f"warm-{hashlib.sha256(text.encode()).hexdigest()[:10]}"


@contextlib.contextmanager
def claimed(
    source: str, uri: str, *, sets: tuple[str, ...] = (), allow_outside: bool = False
) -> Iterator[Claim]:
    """Have a warm machine of a spec or an image for the length of the block.

    The first time it is booted for that, which takes its time. Raises what `pools.create` and
    `pool_client.claimed` raise.
    """
    layout = Layout.default()
    name = name_of(source, sets, uri)
    known = {each.name for each in pool.every(layout)}
    if name not in known:
        asked = pools.Request(
            name=name,
            source=source,
            uri=uri,
            slots=1,
            refills=1,
            # As for a cold run: who runs the command decides whom to trust.
            allow_tcg=True,
            allow_outside=allow_outside,
            sets=sets,
            idle=IDLE_SECONDS,
        )
        # Another one may just be making it.
        with contextlib.suppress(errors.ConflictError):
            pools.create(asked)
    with contextlib.ExitStack() as stack:
        yield _claim(stack, layout, name)


def _claim(stack: contextlib.ExitStack, layout: Layout, name: str) -> Claim:
    """Claim the machine; its supervisor may have gone to rest, or be about to."""
    for attempt in range(_TRIES):
        if pool_client.status(layout, name) is None:
            with contextlib.suppress(errors.VmctlError):
                pools.start(name)
        try:
            return stack.enter_context(pool_client.claimed(name, layout=layout))
        except errors.ConflictError:
            if attempt == _TRIES - 1:
                raise
    raise AssertionError("the loop returns or raises")
