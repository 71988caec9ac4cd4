"""Fair-RSLAD: RSLAD with the class weights of Fair-ARD.

The teacher's soft label is learned at the clean and at the adversarial image, harder for classes that few steps of
the attack break.

Paper:   Yue et al., NeurIPS 2023
Code:    NISP-official/Fair-ARD @ 910c8cd, Fair-RSLAD.py
Claim:   no figure is shown: the paper's tables could not be read at their source
Departs: the 1e-5 added to the counts is that of Fair-ARD; this release leaves it out, where a class that never stands
         has the weight NaN. Counts and weights are otherwise as in `fair-ard`, the scale of KL as in `rslad`:
         `objective.base.scale=0.1` in the `paper` preset. The release saves every epoch and names no rule: the last
         one is kept.
"""

from __future__ import annotations

from dataclasses import replace

from bench.api import Method, Preset
from methods import settings
from methods.fair_ard import Counted, FairWeights
from methods.rslad import PAPER, RSLAD

METHOD = Method(
    slots={"objective": Counted(RSLAD()), "budget": FairWeights()},
    on="rslad",
    module=__name__,
    teachers=("teacher",),
    presets={
        "cifar10/paper": Preset(
            replace(PAPER, nesterov=True, selection="last"), {"objective": Counted(RSLAD(scale=0.1))}
        ),
        **settings.OURS,
    },
)
