"""What a guest says: its console, whether it is ready."""
