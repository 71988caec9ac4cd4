"""Studies: what is to be trained and attacked, what of it is missing, and doing it."""
