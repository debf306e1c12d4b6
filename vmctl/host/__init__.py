"""What this host can do: facts, the KVM probe, verdicts. No libvirt."""
