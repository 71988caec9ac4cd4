"""What every attack and every training method must do, as checks that a plug-in's own tests can run.

attacks                     the checks of an attack
methods                     the checks of a recipe and of a method, gathered from
description, slots, steps   what they say of themselves, hand to the trainer, and do in training
rig                         training on a toy
"""
