"""How commands print: the only place of the command line that writes to a terminal.

Much of what is printed was written by receivers and customers; see `visible`. Colours are ours alone.
"""

from __future__ import annotations

import io
import sys
import typing as t

import click

from ..visible import visible

if t.TYPE_CHECKING:
    from click._termui_impl import ProgressBar

__all__ = ["progress", "say"]

V = t.TypeVar("V")


def say(*parts: str | tuple[str, str], keep: str = "\n\t", err: bool = False, newline: bool = True) -> None:
    """Print texts; of a pair the second is the colour of the first.

    :param keep: what is no printable character and stays: nothing where all of it is one line.
    """
    shown = [
        visible(part, keep) if isinstance(part, str) else click.style(visible(part[0], keep), fg=part[1])
        for part in parts
    ]
    click.echo("".join(shown), err=err, nl=newline)


def progress(
    rows: t.Iterable[V], *, label: str, hidden: bool, length: int | None = None, err: bool = False
) -> ProgressBar[V]:
    """Return a bar that moves along rows; hidden it says nothing (which click can by itself from 8.2 on)."""
    file = io.StringIO() if hidden else sys.stderr if err else None
    return click.progressbar(rows, length, label, file=file)
