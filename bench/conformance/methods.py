"""What every training method must do, as checks that anyone can run on their own.

    for check in RECIPE_CHECKS.values():
        check(Recipe(objective=MyObjective()))
    for check in METHOD_CHECKS.values():
        check(MY_METHOD)

Each raises `AssertionError` with a line about what is wrong, and needs a second or so and no data. The recipe is put
through the trainer's own steps on the toy of `rig`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from bench.conformance.description import check_is_a_value, check_is_documented, check_page, check_slots
from bench.conformance.slots import (
    check_budget_is_a_vector,
    check_foretells_its_attack,
    check_losses_are_vectors,
    check_perturbs_within_reach,
    check_targets_are_distributions,
)
from bench.conformance.steps import (
    check_changes_nothing_in_place,
    check_copes_with_odd_batches,
    check_goes_on_from_its_state,
    check_leaves_global_randomness_alone,
    check_leaves_teachers_alone,
    check_lowers_the_loss,
    check_perturbing_changes_nothing_else,
)
from bench.conformance.watching import by_name
from bench.training.method import Method
from bench.training.recipe import Recipe

RECIPE_CHECKS: Mapping[str, Callable[[Recipe], None]] = by_name(
    check_is_a_value,
    check_is_documented,
    check_foretells_its_attack,
    check_targets_are_distributions,
    check_budget_is_a_vector,
    check_perturbs_within_reach,
    check_perturbing_changes_nothing_else,
    check_losses_are_vectors,
    check_changes_nothing_in_place,
    check_leaves_teachers_alone,
    check_goes_on_from_its_state,
    check_leaves_global_randomness_alone,
    check_copes_with_odd_batches,
    check_lowers_the_loss,
)
"""Every check of what trains, by what it asks of a recipe."""

METHOD_CHECKS: Mapping[str, Callable[[Method], None]] = by_name(check_page, check_slots)
"""Every check of how a method is registered."""
