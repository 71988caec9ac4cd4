"""Training: a recipe of five slots becomes a checkpoint."""
