"""Soundness checks: whether a checkpoint's robust accuracy should be believed.

A model can seem robust because attacks cannot see (masked gradients, saturated losses, probabilities for logits),
because something else was evaluated than was meant (training mode, another range of pixels, random answers), or
because an attack is broken. The checks that can be computed from runs are here, in `CHECKS`; `run_checks` runs them.

Source: Athalye et al. 2018; Carlini et al. 2019; Tramèr et al. 2020; Pintor et al. 2022; AutoAttack's flags. What
needs a person (is the threat model stated, was an adaptive attack tried) is not here, nor what needs a second model
(transfer) or several entries of a board.
"""
