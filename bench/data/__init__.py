"""Images by name, path or Hub id: `load.load` gives a split as `images.Images`."""
