"""The two demonstration businesses: their names, and how to sign in to them."""

from __future__ import annotations

from dataclasses import dataclass

PASSWORD = "demo-password"


@dataclass(frozen=True)
class Founding:
    """What differs from one business to the next."""

    name: str
    legal_name: str
    country: str
    currency: str
    people: tuple[tuple[str, str, bool], ...]
    """Name, email address, and whether they are an administrator."""
    clients: tuple[str, ...]
    suppliers: tuple[str, ...]

    @property
    def domain(self) -> str:
        return f"{self.name.lower()}.example"


FOUNDINGS = (
    Founding(
        name="Acme",
        legal_name="Acme Trading Ltd",
        country="GH",
        currency="GHS",
        people=(("Ada Mensah", "ada@acme.example", True), ("Alan Owusu", "alan@acme.example", False)),
        clients=("Blue Lagoon Hotel", "Cedar Clinic", "Dawn Bakery"),
        suppliers=("Northern Paper Mills", "Volta Electric"),
    ),
    Founding(
        name="Globex",
        legal_name="Globex GmbH",
        country="DE",
        currency="EUR",
        people=(("Bob Keller", "bob@globex.example", True),),
        clients=("Stadtwerke Nord", "Hotel Adler"),
        suppliers=("Papier Schmidt", "Elektro Weber"),
    ),
)


def demo_token(email: str) -> str:
    """Return the API token of a seeded user: ``demo-token-ada`` for ada@acme.example."""
    return f"demo-token-{email.partition('@')[0]}"
