"""The only place that draws on a terminal."""
