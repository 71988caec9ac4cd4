"""The radius of a threat model, kept as the exact number the user meant.

`0.031` and `8/255` differ by 1.4 points on some published boards, so eps is a fraction from the
command line to the database and becomes a float only inside an attack.
"""

from __future__ import annotations

import re
from fractions import Fraction

from bench.errors import BadBudget, brief


def parse_eps(text: str | float | Fraction) -> Fraction:
    """The exact radius that `text` names.

    Args:
        text: "8/255", "0.5/255", "0.15", a number or a fraction; in units of the pixel range [0, 1].

    Raises:
        BadBudget: not a number, zero, negative, or so large or small that no float holds it.
    """
    wanted = "give a positive fraction or decimal such as 8/255 or 0.15"
    try:
        above, slash, below = str(text).partition("/")
        eps = exact(above) / exact(below if slash else "1")
        if eps and not float(eps):
            raise OverflowError
    except OverflowError:
        raise BadBudget(f"eps {brief(repr(text))} is too large or too small for pixels; {wanted}") from None
    except (ValueError, ZeroDivisionError):
        raise BadBudget(f"eps {brief(repr(text))} is no number; {wanted}") from None
    if eps <= 0:
        raise BadBudget(
            f"eps is {brief(str(text))}; a budget must be larger than 0, such as 8/255 (clean accuracy is always "
            "evaluated)"
        )
    return eps


def exact(text: str) -> Fraction:
    """The fraction that a decimal names; at once, also where its power of ten has millions of digits.

    Raises:
        ValueError: it is no decimal, or has thousands of digits.
        OverflowError: its power of ten is beyond what any float holds.
    """
    found = re.fullmatch(r"\s*[-+]?[\d._]*e([-+]?\d+)\s*", text, re.IGNORECASE)
    if found and (len(found[1]) > 5 or abs(int(found[1])) > 400):
        raise OverflowError(f"{text[:20]} is beyond all floats")
    if "/" in text:
        raise ValueError("one stroke is enough")
    return Fraction(text)


def check_radius(eps: Fraction, norm: str) -> None:
    """Refuse a ball that holds every image there is.

    Raises:
        BadBudget: a radius above 1 in Linf, the largest distance between two images.
    """
    if norm == "Linf" and eps > 1:
        meant = f"did you mean {eps.numerator}/255?" if eps.denominator == 1 and eps < 256 else "give one such as 8/255"
        raise BadBudget(f"eps is {brief(show_eps(eps))} in Linf, where pixels lie in [0, 1]; {meant}")


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
