"""Training: a recipe of five slots becomes a checkpoint.

recipe, values, inner    the slots and the plain ones; what travels between them; the attack in training
method, overrides        from `trades+awp` and settings to a recipe and a schedule
schedule, augment        the rest that determines a run
run                      all of it as a value, with its hash
step, loop, state        one step; all of them; what a checkpoint must hold to go on
validation, selection    figures on held-out images; which epoch is kept by them
checkpoint               the file
fit, reselect            train, or go on, and keep the selected epoch; another selection rule afterwards
"""
