"""Attacks: from a model, images and a budget to adversarial images. The evaluator, not the attack, decides success.

One attack, or one family, in each of these files:
    pgd             FGSM, PGD and CW_inf, which follow the gradient of a loss
    apgd            APGD, which finds its step size by itself
    malt            MALT, an APGD towards the classes whose borders seem nearest
    fab             FAB, which looks for the nearest misclassified point (fab_projections: its geometry)
    square          Square, a random search without gradients (square_windows: what it changes)
    autoattack      the standard line-up of four of these
    reference       the same line-up by its reference implementation
    quick           a short line-up for a first figure
    external        attacks of torchattacks and Foolbox (external_names: their names and arguments, read from text)

What they share:
    base            what an attack is
    ascent          the one loop of projected gradient ascent
    standing        the images of a batch that are not broken yet, and attacks that work on those alone
    lineup          attacks in a row
    target_classes  which wrong classes a targeted attack aims at
    prepare         a model made ready to be attacked, and made faster (folding: BatchNorm into the layer before it)

Attacks by name, without torch:
    suite           the names
    trial           an attack with all that changes its result: what is evaluated, and its fingerprint
"""
