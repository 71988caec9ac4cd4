"""Arguments that tests of the command share."""

from __future__ import annotations

TRAIN = ["train", "pgd-at", "--dataset", "digits", "--n", "60", "--model", "convnet-2", "--epochs", "1"]
BARE = ["--dataset", "digits", "--n", "20", "--db", "b.duckdb", "--checks", "none"]
JUDGE = [*BARE, "--attacks", "fgsm"]
