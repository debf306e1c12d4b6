"""Machines kept warm for jobs: what a pool is, its supervisor, its slots, its clients."""
