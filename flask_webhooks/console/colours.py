"""The host's accent colour, made legible. Pure functions over `#rrggbb`.

The law of this room: text in the accent colour, and text on it, has a contrast of at least 4.5 to 1 (WCAG 2.2, 1.4.3)
in the light and in the dark theme, whatever colour the host sets.
"""

from __future__ import annotations

import re

__all__ = ["contrast", "is_colour", "legible", "on", "style_sheet"]

_COLOUR = re.compile(r"#[0-9a-fA-F]{6}")
WANTED = 4.5
LIGHT, DARK = "#ffffff", "#15171c"
"""Background colours of text in the two themes; `--surface` in the style sheet."""


def is_colour(text: str) -> bool:
    """Whether a text is `#rrggbb`."""
    return bool(_COLOUR.fullmatch(text))


def contrast(one: str, other: str) -> float:
    """Return the contrast of two colours, from 1 to 21 (WCAG 2.2, "contrast ratio").

    >>> contrast("#000000", "#ffffff")
    21.0
    """
    light, dark = sorted((_luminance(one), _luminance(other)), reverse=True)
    return round((light + 0.05) / (dark + 0.05), 2)


def style_sheet(accent: str | None) -> str:
    """Return CSS with the accent colour for both themes; empty without one."""
    if accent is None:
        return ""
    light, dark = (
        f":root{{--accent:{colour};--on-accent:{on(colour)}}}"
        for colour in (legible(accent, surface) for surface in (LIGHT, DARK))
    )
    return f"{light}@media(prefers-color-scheme:dark){{{dark}}}"


def legible(accent: str, surface: str) -> str:
    """Return the accent colour, mixed with black or white until its contrast on a surface suffices."""
    towards = "#000000" if _luminance(surface) > 0.5 else "#ffffff"
    for step in range(21):
        mixed = _mixed(accent, towards, step / 20)
        if contrast(mixed, surface) >= WANTED:
            return mixed
    return towards


def on(colour: str) -> str:
    """Return black or white, whichever has more contrast on a colour."""
    return max(("#ffffff", "#000000"), key=lambda text: contrast(text, colour))


def _mixed(one: str, other: str, share: float) -> str:
    channels = zip(_channels(one), _channels(other), strict=True)
    return "#" + "".join(f"{round(a + (b - a) * share):02x}" for a, b in channels)


def _channels(colour: str) -> tuple[int, int, int]:
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)


def _luminance(colour: str) -> float:
    red, green, blue = (
        value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4
        for value in (channel / 255 for channel in _channels(colour))
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue
