"""What kinds of devices a guest's kernel may be able to drive, kept free of imports."""

from __future__ import annotations

STANDARD = ("virtio", "ahci", "ide", "e1000", "e1000e")
"""All that vmctl shows to guests: what a kernel is assumed to drive where nobody says."""
