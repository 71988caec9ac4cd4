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

from bench.attacks.ascent import ascend as ascend, gradient as gradient
from bench.attacks.base import Attack as Attack, Attributed as Attributed, Passes as Passes
from bench.attacks.lineup import LineUp as LineUp
from bench.attacks.standing import Search as Search, Standing as Standing
from bench.attacks.suite import ATTACKS as ATTACKS
from bench.conformance.attacks import ATTACK_CHECKS as ATTACK_CHECKS
from bench.conformance.methods import METHOD_CHECKS as METHOD_CHECKS, RECIPE_CHECKS as RECIPE_CHECKS
from bench.conformance.rig import Rig as Rig, separable as separable
from bench.errors import (
    BadBudget as BadBudget,
    BadModel as BadModel,
    BadOption as BadOption,
    BadRecipe as BadRecipe,
    BenchError as BenchError,
)
from bench.evaluation.meter import Meter as Meter
from bench.losses import (
    cross_entropy as cross_entropy,
    dlr as dlr,
    kl as kl,
    margin as margin,
    one_hot as one_hot,
    probability_margin as probability_margin,
    targeted_dlr as targeted_dlr,
    targeted_margin as targeted_margin,
)
from bench.norms import L2 as L2, LINF as LINF, Norm as Norm, growth as growth, norm as norm, per_image as per_image
from bench.randomness import Streams as Streams
from bench.training.inner import Adversarial as Adversarial, Inner as Inner, switched as switched
from bench.training.method import METHODS as METHODS, Method as Method, Preset as Preset, compose as compose
from bench.training.ranges import (
    Count as Count,
    NotNegative as NotNegative,
    Positive as Positive,
    Range as Range,
    Ranged as Ranged,
    Share as Share,
    require_range as require_range,
)
from bench.training.recipe import (
    Descend as Descend,
    Last as Last,
    Objective as Objective,
    OneHot as OneHot,
    Recipe as Recipe,
    Span as Span,
    State as State,
    Stateless as Stateless,
    Uniform as Uniform,
    blend as blend,
)
from bench.training.schedule import Schedule as Schedule
from bench.training.values import (
    Batch as Batch,
    Context as Context,
    Losses as Losses,
    Reach as Reach,
    Tally as Tally,
    Targets as Targets,
    Weights as Weights,
    constant as constant,
)
