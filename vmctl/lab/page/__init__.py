"""The page that explains a comparison: one HTML file that needs nothing else."""
