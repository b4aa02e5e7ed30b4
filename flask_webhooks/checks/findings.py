"""The result of one check: errors, warnings and notes."""

from __future__ import annotations

import enum
import typing as t
from dataclasses import dataclass

if t.TYPE_CHECKING:
    from ..errors import Problem

__all__ = ["Check", "Finding", "Level"]


class Level(enum.StrEnum):
    """How bad it is."""

    ERROR = "error"
    """It must not be deployed like this."""
    WARNING = "warning"
    """It works, but probably not as intended."""
    NOTE = "note"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was found."""

    level: Level
    message: str
    """What is wrong, and what to do."""
    file: str | None = None
    line: int | None = None
    path: str | None = None
    """Where in the catalogue."""

    @classmethod
    def of(cls, problem: Problem) -> Finding:
        """Return a mistake of the catalogue as a finding."""
        text = f"{problem.message} {problem.remedy}".rstrip()
        return cls(Level.ERROR, text, problem.file, problem.line, problem.path)

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}: {self.path}: " if self.file is not None else ""
        return f"{where}{self.message}"


@dataclass(frozen=True, slots=True)
class Check:
    """One part that was looked at."""

    name: str
    summary: str
    """One line: what there is."""
    findings: tuple[Finding, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong; warnings and notes are not."""
        return all(finding.level is not Level.ERROR for finding in self.findings)
