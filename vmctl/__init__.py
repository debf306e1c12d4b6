"""vmctl turns a short YAML file into a running virtual machine through libvirt and QEMU."""

__version__ = "0.1.0"
