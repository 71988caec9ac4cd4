"""The store: outcomes go in by transaction, numbers come out by query. No torch."""
