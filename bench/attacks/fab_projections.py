"""Smallest moves onto a hyperplane without leaving the box of the pixels."""

from __future__ import annotations

import torch
from torch import Tensor

from bench.norms import Norm

NEWTON_STEPS = 6
"""Exact up to rounding where the hyperplane is at most half as far as the box allows; FAB's are much nearer. Close to
the edge of what the box allows a move may end short of the hyperplane (4 % in the worst of millions of random cases),
never beyond it."""
KEPT = 0.999
"""Share of its length that a move keeps in any step. By rounding it may seem a hair too long; where hardly a pixel is
free, Newton's step back would undo all of it."""
FAR, TINY = 1e30, 1e-30


def moves_onto(points: Tensor, normal: Tensor, gap: Tensor, norm: Norm) -> Tensor:
    """The smallest moves that take points of [0, 1] onto a hyperplane and keep them in [0, 1].

    Such a move follows the norm's steepest direction, and a pixel that reaches the end of its range stays there: pixel
    by pixel the move is sign * min(length * |steepest|, room). Only the length is to be found. The scalar product grows
    with it, in straight pieces that become flatter and flatter, so that Newton's method from 0 comes ever nearer to the
    right length and never passes it. That takes a tenth of the time of sorting the pixels by where they stop.

    Args:
        points: (P,B,...) P points for each hyperplane.
        normal: (B,...) normal vectors.
        gap: (P,B) what the scalar product of normal and move is to be.
        norm: geometry in which a move is small.

    Returns:
        (P,B,...) moves. Where the box does not reach the hyperplane, every pixel goes as near as it can; where the
        normal is 0, none moves.

    Source: the problem is that of Croce and Hein 2020 (FAB), section 2; solved there by sorting.
    """
    weight = normal.flatten(1).abs()
    steepest = norm.steepest(normal).flatten(1).abs()
    unit = (weight * steepest).sum(1, keepdim=True).clamp(min=TINY)  # gained by a move of size 1, were there no box
    weight, need = weight / unit, gap.abs() / unit[:, 0]
    rate = weight * steepest
    way = normal.flatten(1).sign() * gap.sign()[..., None]
    room = (1 + way) / 2 - way * points.flatten(2)
    length, move, work = need.clone(), torch.empty_like(room), torch.empty_like(room)
    for _ in range(NEWTON_STEPS):  # in two buffers: allocating anew costs several times the arithmetic
        torch.mul(length[..., None], steepest, out=move)
        torch.minimum(move, room, out=move)
        missing = need - torch.mul(weight, move, out=work).sum(2)
        free = torch.sub(room, move, out=work).mul_(FAR).clamp_(max=1)  # 1 where room is left; a comparison is slow
        step = missing / free.mul_(rate).sum(2).clamp(min=TINY)
        length = torch.maximum(length + step, KEPT * length)
    length = length.masked_fill((weight * room).sum(2) <= need, FAR)
    torch.mul(length[..., None], steepest, out=move)
    return torch.minimum(move, room, out=move).mul_(way).reshape(points.shape)
