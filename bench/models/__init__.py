"""Networks by name (`architecture`), one file per family, and weights of other projects (`foreign`)."""
