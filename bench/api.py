"""All that a method's or an attack's file needs, in one import. What is not here may change without a word.

**A method** registers a `Method` under `evenbench.methods`: slots, and `Preset`s with a `Schedule` each.

| slot      | inherit from                     | the plain one |
|-----------|----------------------------------|---------------|
| objective | `Adversarial`, or `Objective`    |               |
| targets   | `Stateless`                      | `OneHot`      |
| budget    | `Uniform`                        | `Uniform`     |
| step      |                                  | `Descend`     |
| average   | `Stateless`; move it by `blend`  | `Last`        |

- `Context`, `Batch`, `Targets` (`constant`), `Reach`, `Losses`, `Weights` and `Tally` travel between trainer and slots;
  `State` is what a slot remembers.
- `Inner` is the attack in training, `switched` puts a model into train or eval mode for a while, `ascend` climbs.
- A field says its range in its type: `Share`, `NotNegative`, `Positive`, `Count`, or with a `Range` of its own; a class
  that inherits from none of the above inherits from `Ranged`. `require_range` holds one field against another. A `Span`
  moves over the run.

**An attack** inherits from `Attack`, or from `Search` or `LineUp` where it lets broken images leave early; it is
registered under `evenbench.attacks`.

- `Norm` is the geometry of the ball: `LINF`, `L2`, or `norm` by name; `growth` and `per_image` help with it.
- `Streams` is the only randomness.
- `Standing` keeps the images that are not broken, `ascend` and `gradient` move them.
- `Attributed` and `Passes` say what became of them and what that took.

**Both** take losses per image: `cross_entropy`, `kl`, `margin`, `probability_margin`, `dlr` and, towards a class,
`targeted_margin` and `targeted_dlr`; `one_hot` makes labels distributions. What is wrong with a user's input is a
`BadRecipe`, `BadOption`, `BadBudget` or `BadModel`; each is a `BenchError`, said on one line.

**A plug-in's tests** run `RECIPE_CHECKS` over a `Recipe`, `METHOD_CHECKS` over a `Method` and `ATTACK_CHECKS` over an
attack. `compose` makes a recipe of a name, `METHODS` and `ATTACKS` are the registries. `Rig` trains a recipe step by
step on `separable` images; `Meter` counts the passes through a model.
"""

from __future__ import annotations

from bench.attacks.ascent import ascend, gradient
from bench.attacks.base import Attack, Attributed, Passes
from bench.attacks.lineup import LineUp
from bench.attacks.standing import Search, Standing
from bench.attacks.suite import ATTACKS
from bench.conformance.attacks import ATTACK_CHECKS
from bench.conformance.methods import METHOD_CHECKS, RECIPE_CHECKS
from bench.conformance.rig import Rig, separable
from bench.errors import BadBudget, BadModel, BadOption, BadRecipe, BenchError
from bench.evaluation.meter import Meter
from bench.losses import (
    cross_entropy,
    dlr,
    kl,
    margin,
    one_hot,
    probability_margin,
    targeted_dlr,
    targeted_margin,
)
from bench.norms import L2, LINF, Norm, growth, norm, per_image
from bench.randomness import Streams
from bench.training.inner import Adversarial, Inner, switched
from bench.training.method import METHODS, Method, Preset, compose
from bench.training.ranges import Count, NotNegative, Positive, Range, Ranged, Share, require_range
from bench.training.recipe import (
    Descend,
    Last,
    Objective,
    OneHot,
    Recipe,
    Span,
    State,
    Stateless,
    Uniform,
    blend,
)
from bench.training.schedule import Schedule
from bench.training.values import Batch, Context, Losses, Reach, Tally, Targets, Weights, constant

__all__ = [
    "ATTACKS",
    "ATTACK_CHECKS",
    "L2",
    "LINF",
    "METHODS",
    "METHOD_CHECKS",
    "RECIPE_CHECKS",
    "Adversarial",
    "Attack",
    "Attributed",
    "BadBudget",
    "BadModel",
    "BadOption",
    "BadRecipe",
    "Batch",
    "BenchError",
    "Context",
    "Count",
    "Descend",
    "Inner",
    "Last",
    "LineUp",
    "Losses",
    "Meter",
    "Method",
    "Norm",
    "NotNegative",
    "Objective",
    "OneHot",
    "Passes",
    "Positive",
    "Preset",
    "Range",
    "Ranged",
    "Reach",
    "Recipe",
    "Rig",
    "Schedule",
    "Search",
    "Share",
    "Span",
    "Standing",
    "State",
    "Stateless",
    "Streams",
    "Tally",
    "Targets",
    "Uniform",
    "Weights",
    "ascend",
    "blend",
    "compose",
    "constant",
    "cross_entropy",
    "dlr",
    "gradient",
    "growth",
    "kl",
    "margin",
    "norm",
    "one_hot",
    "per_image",
    "probability_margin",
    "require_range",
    "separable",
    "switched",
    "targeted_dlr",
    "targeted_margin",
]
