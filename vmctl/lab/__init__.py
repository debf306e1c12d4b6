"""The lab: what full emulation, hardware assistance and paravirtualization cost, measured here."""
