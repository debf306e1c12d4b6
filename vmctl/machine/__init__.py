"""What will run: pure decisions, no input or output."""
