"""The radius of a threat model, kept as the exact number the user meant.

`0.031` and `8/255` differ by 1.4 points on some published boards, so eps is a fraction from the
command line to the database and becomes a float only inside an attack.
"""

from __future__ import annotations

from fractions import Fraction

from bench.errors import BadBudget


def parse_eps(text: str | float | Fraction) -> Fraction:
    """The exact radius that `text` names.

    Args:
        text: "8/255", "0.5/255", "0.15", a number or a fraction; in units of the pixel range [0, 1].

    Raises:
        BadBudget: not a number, zero, negative or infinite.
    """
    try:
        above, slash, below = str(text).partition("/")
        eps = Fraction(above) / Fraction(below if slash else 1)
    except (ValueError, ZeroDivisionError):
        raise BadBudget(
            f"eps {text!r} is no number; give a positive fraction or decimal such as 8/255 or 0.15"
        ) from None
    try:
        float(eps)
    except OverflowError:
        raise BadBudget(
            f"eps {text!r} is beyond all pixels; give a fraction or decimal such as 8/255 or 0.15"
        ) from None
    if eps <= 0:
        raise BadBudget(
            f"eps is {text}; a budget must be larger than 0, such as 8/255 (clean accuracy is always evaluated)"
        )
    return eps


def show_eps(eps: Fraction) -> str:
    """The shortest exact spelling: `0.15` where decimal, `8/255` in 8-bit steps, else `p/q`.

    >>> show_eps(Fraction(8, 255)), show_eps(Fraction("0.15")), show_eps(Fraction(1, 510)), show_eps(Fraction(1, 7))
    ('8/255', '0.15', '0.5/255', '1/7')
    """
    if text := _decimal(eps, 12):
        return text
    if text := _decimal(eps * 255, 3):
        return f"{text}/255"
    return f"{eps.numerator}/{eps.denominator}"


def _decimal(value: Fraction, most: int) -> str:
    """The value as a decimal of at most so many digits after the point, or "" if it is none."""
    for digits in range(most + 1):
        scaled = value * 10**digits
        if scaled.denominator == 1:
            whole, rest = divmod(scaled.numerator, 10**digits)
            return f"{whole}.{rest:0{digits}d}" if digits else str(whole)
    return ""
