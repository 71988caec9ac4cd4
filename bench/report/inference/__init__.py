"""Inference: what a figure of a sample says of what it was drawn from. Pure functions over counts and arrays.

Three questions can be asked of the same figures, and are never pooled (`crossed.Question`): what holds for these very
checkpoints on other images, for other seeds of the method on these images, or for other seeds on other images. A file
is a subject:

    proportion   one accuracy: Wilson's interval
    paired       two checkpoints on the same images: McNemar's tests, Tango's interval
    crossed      means over seeds and images, both drawn at random, and their differences
    family       many figures at one level: Holm, max-T by sign flips
    fairness     the NSD without its bias, its floor, its interval; as a mean over seeds
    worst        the worst class and the difference of two
    sequential   evidence that may be looked at while the images come in
"""
