"""Training methods, one file each; each registers a `METHOD` through the entry-point group `evenbench.methods`."""
