"""What vmctl keeps on disk."""
