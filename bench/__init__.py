"""Measurements of vmctl against virsh, virt-install and plain QEMU: `python -m bench`.

How it is measured, and what came out, is in docs/performance.md. Nothing here is a test: a clock on
a busy machine decides nothing.
"""
