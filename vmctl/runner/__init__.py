"""Throw-away machines for one command each: runs, warm pools, CI executors."""
