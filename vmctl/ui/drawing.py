"""The rich console that tables and progress draw on; imported only where there is a terminal."""

from __future__ import annotations

from typing import TextIO

from rich.console import Console
from rich.theme import Theme

from vmctl.ui import palette, terminal

_THEME = Theme(
    {
        "progress.download": "none",
        "progress.elapsed": palette.QUIET,
        "progress.remaining": palette.QUIET,
        "bar.back": palette.QUIET,
        "bar.pulse": palette.BUSY,
    }
)


def console(stream: TextIO, out: terminal.Terminal) -> Console:
    """Return a console that shows text as it is: no markup, no highlighting, no emoji codes."""
    return Console(
        file=stream,
        width=out.width,
        force_terminal=True,
        force_interactive=True,
        legacy_windows=False,
        color_system="standard" if out.colour else None,
        no_color=not out.colour,
        highlight=False,
        markup=False,
        emoji=False,
        theme=_THEME,
    )
