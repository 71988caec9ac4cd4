"""Reports: tables, figures, comparisons and verdicts, read from the store. No torch."""
