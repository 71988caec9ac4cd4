"""Soundness checks: should a model's robust accuracy be believed?

A model can seem robust because attacks cannot see (masked gradients, saturated losses, probabilities for logits),
because something else was evaluated than was meant (training mode, another range of pixels, random answers), or
because an attack is broken. Each check puts one such question; `run_checks` puts them all.

The checks, by what they look at:
    answers      what the model answers without attack
    gradients    its gradient
    strength     attacks of rising strength on it
    attacks      the attacks that were run on it when it was evaluated

What they are made of:
    check        what a check is, and the tests that tell a finding from chance
    sampling     which images are looked at
    subject      the model, and all that is measured of it
    measured     the values that are measured
    run          all checks in their order, and running them
    examination  what is to be examined after an evaluation, and where the verdicts are stored

Source: Athalye et al. 2018; Carlini et al. 2019; Tramèr et al. 2020; Pintor et al. 2022; AutoAttack's flags. Not here
is what needs a person (is the threat model stated, was an adaptive attack tried), a second model (transfer), or several
entries of a board.
"""
