"""What every attack and every training method must do, as checks that a plugin's own tests can run."""
