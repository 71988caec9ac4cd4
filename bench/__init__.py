"""Evenbench: adversarial robustness, read class by class.

The way of the data, file by file:

    data → recipe → train → checkpoint → attacks → evaluate → outcomes
         → store → metrics → leaderboard | plots | compare | check

The first half makes (torch): it turns images and recipes into checkpoints, and checkpoints into `Outcomes`. The second
half reads (no torch): it turns outcomes into tables, figures and verdicts. `bench.outcomes` is the waist between them;
`bench.cli` is the only file that knows both halves.
"""
