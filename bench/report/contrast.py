"""Which ink reads best on a colour."""

from __future__ import annotations


def wants_black(red: float, green: float, blue: float) -> bool:
    """Whether black stands out more than white on the colour with these components, each in [0, 1].

    Source: WCAG 2.1, definitions of relative luminance and of contrast ratio.
    """
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in (red, green, blue)]
    light = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return (light + 0.05) ** 2 > 0.05 * 1.05
