"""Guest images: recipes, builders, the gate, qcow2."""
