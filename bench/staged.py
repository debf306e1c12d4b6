"""Runs vmctl with watches on some of its functions: `python -m bench.staged FILE COMMAND...`.

The moment before the interpreter was started comes in BENCH_BEGAN (monotonic seconds). What each
stage took goes to FILE as JSON. vmctl itself knows nothing of this.
"""

from __future__ import annotations

import builtins
import functools
import importlib
import json
import os
import pathlib
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from bench.spans import Spans

STAGES = {
    ("vmctl.spec.load", "load"): "read the spec",
    ("vmctl.host.gather", "gather"): "host facts",
    ("vmctl.host.verdict", "kvm_verdict"): "host facts",
    ("vmctl.host.nesting", "nested_verdict"): "host facts",
    ("vmctl.store.storage", "examine"): "try the store's file system",
    ("vmctl.machine.resolve", "resolve"): "resolve",
    ("vmctl.images.catalog", "find"): "find the image",
    ("vmctl.hypervisor.connection", "connect"): "connect to libvirt",
    ("vmctl.lifecycle.observe", "observe_all"): "observe and plan",
    ("vmctl.lifecycle.observe", "observe"): "observe and plan",
    ("vmctl.machine.plan", "plan"): "observe and plan",
    ("vmctl.store.files", "write"): "write to the store (fsync)",
    ("vmctl.machine.xml.domain", "write"): "write the XML",
    ("vmctl.hypervisor.domains", "define"): "libvirt: define",
    ("vmctl.hypervisor.domains", "start"): "libvirt: start",
    ("vmctl.hypervisor.bulk", "summaries"): "libvirt: bulk call",
    ("vmctl.lifecycle.roster", "rows"): "read the records",
    ("vmctl.ui.table", "show"): "draw the table",
}
TOP = pathlib.Path(__file__).parents[1]
IMPORTS = "imports"
INTERPRETER = "interpreter, and these watches"
OTHER = "other"
LAST = "libvirt: start"
"""After this stage the guest runs; what vmctl does then delays nobody's first line."""


def main() -> int:
    """Run vmctl and write down what its stages took."""
    entered = time.monotonic()
    spans = Spans()
    began = float(os.environ["BENCH_BEGAN"])
    report = pathlib.Path(sys.argv[1])
    watch = _Watch(spans)
    watch.install()
    cli = importlib.import_module("vmctl.cli")
    status = cli.run(sys.argv[2:])
    ended, own = watch.last or (time.monotonic(), dict(spans.own))
    stages = {INTERPRETER: entered - began, **own}
    stages[OTHER] = max(0.0, ended - began - sum(stages.values()))
    report.write_text(json.dumps({**stages, "total": ended - began}))
    return int(status)


class _Watch:
    """Puts the watches on as modules come in; the first thread's imports are a stage."""

    def __init__(self, spans: Spans) -> None:
        self.spans = spans
        self.wanted = dict(STAGES)
        self.depth = 0
        self.last: tuple[float, dict[str, float]] | None = None

    def install(self) -> None:
        """Watch imports, which bring in what else is to be watched."""
        builtins.__import__ = self._importing(builtins.__import__)
        importlib.import_module = self._importing(importlib.import_module)

    def _importing(self, plain: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(plain)
        def importing(*arguments: Any, **named: Any) -> Any:
            if self.depth or _elsewhere():
                return plain(*arguments, **named)
            self.depth += 1
            try:
                known = len(sys.modules)
                with self.spans.span(IMPORTS):
                    found = plain(*arguments, **named)
            finally:
                self.depth -= 1
            if len(sys.modules) != known:
                self._watch_new()
            return found

        return importing

    def _watch_new(self) -> None:
        for module_name, function in list(self.wanted):
            module = sys.modules.get(module_name)
            plain = getattr(module, function, None)
            if plain is not None:
                stage = self.wanted.pop((module_name, function))
                setattr(module, function, self._watched(plain, stage))

    def _watched(self, plain: Callable[..., Any], stage: str) -> Callable[..., Any]:
        @functools.wraps(plain)
        def watched(*arguments: Any, **named: Any) -> Any:
            with self.spans.span(stage):
                found = plain(*arguments, **named)
                # A generator does its work only when it is asked for more.
                found = iter(list(found)) if _is_generator(found) else found
            if stage == LAST and self.last is None:
                self.last = (time.monotonic(), dict(self.spans.own))
            return found

        return watched


def _is_generator(value: Any) -> bool:
    return type(value).__name__ == "generator"


def _elsewhere() -> bool:
    """Tell whether another thread than the first imports; its imports are part of its stage."""
    return threading.current_thread() is not threading.main_thread()


if __name__ == "__main__":
    sys.exit(main())
