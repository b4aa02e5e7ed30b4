"""The caller of the API or the console, and the owners whose rows the caller may see.

The law of this room: a missing value never means "all owners". An owner is a non-empty text, compared byte for byte;
all owners together are `ALL_OWNERS`, which equals no other value, so it is never passed by accident.
"""

from __future__ import annotations

import collections.abc
import enum
import typing as t
from dataclasses import dataclass

from .errors import PrincipalError
from .visible import is_storable

__all__ = ["ALL_OWNERS", "RIGHTS", "AllOwners", "Principal", "Right", "Whose", "is_owner"]

Right = t.Literal["read", "write", "secrets"]
RIGHTS: frozenset[str] = frozenset(t.get_args(Right))
LONGEST = 255
"""Characters of an owner: the length of the columns."""


class AllOwners(enum.Enum):
    """The type of `ALL_OWNERS`, its only value."""

    ALL_OWNERS = "all owners"

    def __repr__(self) -> str:
        return self.name


ALL_OWNERS: t.Final = AllOwners.ALL_OWNERS
"""Stands for the rows of every owner. As a principal's owner: an operator who is no customer."""

Whose = str | t.Literal[AllOwners.ALL_OWNERS]
"""One owner, or all of them."""


@dataclass(frozen=True, slots=True)
class Principal:
    """The caller of the API or the console, and the caller's rights.

    :param owner: the customer that the caller belongs to, a non-empty str; `ALL_OWNERS` for an operator who is no
        customer.
    :param rights: a set of `read`, `write` and `secrets`.
    :param operator: the caller sees the subscriptions of every owner. One that an operator creates belongs to the
        operator's own owner, unless the request names another.
    :raises PrincipalError: any other value. None, an empty text, a number or a UUID is no owner.
    """

    owner: Whose
    rights: t.AbstractSet[str] = frozenset({"read"})
    operator: bool = False

    def __post_init__(self) -> None:
        if type(self.operator) is not bool:
            raise _refusal(f"operator is {self.operator!r}", "give True or False")
        object.__setattr__(self, "rights", _checked_rights(self.rights))
        if self.owner is ALL_OWNERS:
            object.__setattr__(self, "operator", True)
        else:
            object.__setattr__(self, "owner", _checked_owner(self.owner))

    def may(self, right: str) -> bool:
        """Whether this principal has a right."""
        return right in self.rights

    @property
    def sees(self) -> Whose:
        """The owner whose rows this principal may see, or `ALL_OWNERS`."""
        return ALL_OWNERS if self.operator else self.owner

    @property
    def account(self) -> str:
        """The key of this principal's own rows, such as its idempotency keys: the owner, or "" for an operator without
        one. No owner is an empty text, so the two never collide."""
        return self.owner if isinstance(self.owner, str) else ""


def is_owner(text: str) -> bool:
    """Whether a principal may have this owner."""
    try:
        return _checked_owner(text) == text
    except PrincipalError:
        return False


def _refusal(wrong: str, remedy: str) -> PrincipalError:
    return PrincipalError(f"{wrong}. In your principal_loader, {remedy}.")


def _checked_owner(owner: t.Any) -> str:
    """Return the owner as a plain str. A proxy may be another text later, and a subclass may override comparison."""
    if not issubclass(type(owner), str):
        # Only the type is shown: the `repr` of a user or session object may hold secrets.
        wrong = "owner is None" if owner is None else f"owner is of the type {type(owner).__name__}"
        raise _refusal(wrong, _remedy(owner))
    text = str.__str__(owner)
    # "None" comes from str(None): all users without an account would share this owner.
    if not text.strip() or text == "None":
        raise _refusal(f"owner is {text!r}", _remedy(None))
    if len(text) > LONGEST:
        raise _refusal(f"owner has {len(text)} characters", f"give at most {LONGEST}")
    if not is_storable(text):
        raise _refusal(f"owner is {text!r}", "give a text without NUL that UTF-8 can hold")
    return text


def _remedy(owner: t.Any) -> str:
    if owner is None:
        return (
            "return None instead of a Principal where no user is signed in or there is no account, and give ALL_OWNERS "
            "for an operator who has none"
        )
    return "give a str, such as str(current_user.account_id)"


def _checked_rights(rights: t.Any) -> frozenset[str]:
    if not isinstance(rights, collections.abc.Set):
        raise _refusal(f"rights are {rights!r} ({type(rights).__name__})", "give a set, such as {'read'}")
    unknown = sorted(map(repr, rights - RIGHTS))
    if unknown:
        known = ", ".join(map(repr, sorted(RIGHTS)))
        raise _refusal(f"rights have {', '.join(unknown)}", f"give a set of {known}")
    return frozenset(right for right in RIGHTS if right in rights)
