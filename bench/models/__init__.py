"""Networks by name: `architecture.build` makes them, pixels in [0, 1] to logits."""
