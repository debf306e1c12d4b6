"""Which word is shown in which colour."""

from __future__ import annotations

HEADING = "bold"
QUIET = "dim"
GOOD = "green"
BUSY = "cyan"
ATTENTION = "yellow"
BAD = "red"

_STYLES = {
    GOOD: ("running", "ready", "ok", "yes", "done", "valid"),
    BUSY: ("starting", "stopping", "booting", "waiting", "creating", "pending"),
    ATTENTION: ("paused", "warning", "warn", "drift", "changed", "unknown", "blocked", "missing"),
    BAD: ("crashed", "failed", "fail", "error", "panicked", "broken", "internal-error", "no"),
    QUIET: ("stopped", "shut off", "shutoff", "absent", "skipped", "info", "-"),
}
_STYLE_OF = {word: style for style, words in _STYLES.items() for word in words}


def style_of(state: str) -> str:
    """Return the style of a state or verdict, looked up by its first word, or the empty style.

    `running (ready)` looks like `running`; `internal-error` has a word of its own.
    """
    word = state.casefold().strip()
    return _STYLE_OF.get(word) or _STYLE_OF.get(word.split(" ")[0].rstrip(",:;"), "")
