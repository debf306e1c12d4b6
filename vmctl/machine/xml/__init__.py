"""Domain and network XML, written and read; one file for each thing."""
