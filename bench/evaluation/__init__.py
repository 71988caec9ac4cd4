"""Evaluation: a network is attacked and judged, image by image; what comes out are `Outcomes`."""
