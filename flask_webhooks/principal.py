"""Who is calling, and whose rows they may see.

The law of this room: a missing value never means "everybody's". Every owner is a text with something in it, compared
byte for byte; all owners together are `ALL_OWNERS`, which equals nothing else and has to be written on purpose.
"""

from __future__ import annotations

import collections.abc
import enum
import typing as t
from dataclasses import dataclass

from .errors import PrincipalError

__all__ = ["ALL_OWNERS", "RIGHTS", "AllOwners", "Principal", "Whose"]

RIGHTS = frozenset({"read", "write", "secrets"})
LONGEST = 255
"""Characters of an owner: what the columns hold."""


class AllOwners(enum.Enum):
    """The type of `ALL_OWNERS`, its only value."""

    ALL_OWNERS = "all owners"

    def __repr__(self) -> str:
        return self.name


ALL_OWNERS: t.Final = AllOwners.ALL_OWNERS
"""The rows of every owner. As a principal's owner: an operator who is no customer."""

Whose = str | t.Literal[AllOwners.ALL_OWNERS]
"""One owner, or all of them."""


@dataclass(frozen=True, slots=True)
class Principal:
    """Who is calling the API or the console, and what they may do.

    :param owner: the customer that they belong to, a non-empty str; `ALL_OWNERS` for an operator who is no customer.
    :param rights: a set of `read`, `write` and `secrets`.
    :param operator: sees the subscriptions of every owner. What they make is their own, unless they say whose.
    :raises PrincipalError: anything else. None, an empty text, a number or a UUID is no owner.
    """

    owner: Whose
    rights: t.AbstractSet[str] = frozenset({"read"})
    operator: bool = False

    def __post_init__(self) -> None:
        if type(self.operator) is not bool:
            raise PrincipalError(f"operator is {self.operator!r}. Give True or False.")
        object.__setattr__(self, "rights", _checked_rights(self.rights))
        if self.owner is ALL_OWNERS:
            object.__setattr__(self, "operator", True)
        else:
            object.__setattr__(self, "owner", _checked_owner(self.owner))

    def may(self, right: str) -> bool:
        """Say whether this principal has a right."""
        return right in self.rights

    @property
    def sees(self) -> Whose:
        """Whose rows this principal may see."""
        return ALL_OWNERS if self.operator else self.owner

    @property
    def account(self) -> str:
        """What this principal's own things are kept under: the owner; empty, as no owner is, for one without."""
        return self.owner if isinstance(self.owner, str) else ""


def _checked_owner(owner: t.Any) -> str:
    """Return the text itself: neither a proxy, which may be another text later, nor a subclass, which may compare as it
    likes."""
    if not issubclass(type(owner), str):
        remedy = (
            "Return None instead of a Principal if nobody is signed in, or ALL_OWNERS as the owner of an operator"
            if owner is None
            else "Give a str, such as str(current_user.account_id)"
        )
        raise PrincipalError(f"owner is {owner!r} ({type(owner).__name__}). {remedy}.")
    text = str.__str__(owner)
    if not text.strip():
        raise PrincipalError(
            f"owner is {text!r}. Give the key of an account; return None instead of a Principal if there is none."
        )
    if text == "None":
        raise PrincipalError(
            "owner is 'None', which str(None) makes: everybody without an account would share it. Return None instead "
            "of a Principal."
        )
    if len(text) > LONGEST:
        raise PrincipalError(f"owner has {len(text)} characters. Give at most {LONGEST}.")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise PrincipalError(f"owner is {text!r}, which UTF-8 cannot hold. Give other characters.") from None
    if "\0" in text:
        raise PrincipalError(f"owner is {text!r}. Give a text without NUL: no database compares beyond it.")
    return text


def _checked_rights(rights: t.Any) -> frozenset[str]:
    if not isinstance(rights, collections.abc.Set):
        raise PrincipalError(
            f"rights are {rights!r} ({type(rights).__name__}). Give a set, such as {{'read'}}."
        )
    unknown = sorted(map(repr, rights - RIGHTS))
    if unknown:
        raise PrincipalError(
            f"rights have {', '.join(unknown)}. Give a set of {', '.join(map(repr, sorted(RIGHTS)))}."
        )
    return frozenset(right for right in RIGHTS if right in rights)
