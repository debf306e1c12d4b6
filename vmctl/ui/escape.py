"""Makes text that somebody else wrote safe to show on a terminal."""

from __future__ import annotations

import re

_C0_C1_DEL = "\x00-\x1f\x7f-\x9f"
# What reorders or hides text: bidirectional marks, embeddings, overrides and isolates, zero-width
# characters, line and paragraph separators, the byte order mark, language tags.
# (https://www.unicode.org/reports/tr36/, "Trojan Source" CVE-2021-42574.)
_DECEIVING = "\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\U000e0000-\U000e007f"
_SURROGATES = "\ud800-\udfff"

_UNPRINTABLE = re.compile(f"[{_C0_C1_DEL}{_DECEIVING}{_SURROGATES}]")


def printable(text: str, *, keep: str = "\n\t") -> str:
    r"""Return `text` with control characters as \x1b, \u202e and the like; those in `keep` stay."""
    return _UNPRINTABLE.sub(lambda found: _escaped(found.group(), keep), text)


def _escaped(character: str, keep: str) -> str:
    if character in keep:
        return character
    code = ord(character)
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def one_line(text: str) -> str:
    """Return `text` as a single printable line: for table cells, names and notes."""
    return printable(" ".join(text.split("\n")), keep="").strip()
