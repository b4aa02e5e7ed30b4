"""The catalogue of the accounting product has exactly the channels that it documents."""

from __future__ import annotations

import json

import pytest
from sqlalchemy import inspect

from example_app import CATALOG
from example_app.channels import RESOURCES
from flask_webhooks import catalog as catalogs

C, U, D = "created", "updated", "deleted"

PROMISED = {
    "business": ("Business", {U}),
    "invoices": ("Invoices", {C, U, D}),
    "invoice_payments": ("Invoice Payments", {C, U, D}),
    "invoice_online_payments": ("Invoice Online Payments", {C}),
    "sales": ("Sales", {C, U, D}),
    "deposits": ("Deposits", {C, U, D}),
    "quotes": ("Quotes", {C, U, D}),
    "other_incomes": ("Other Incomes", {C, U, D}),
    "clients": ("Clients", {C, U, D}),
    "expenses": ("Expenses", {C, U, D}),
    "bills": ("Bills", {C, U, D}),
    "bill_payments": ("Bill Payments", {C, U, D}),
    "bill_online_payments": ("Bill Online Payments", {C}),
    "income_tax_payments": ("Income Tax Payments", {C, D}),
    "withholding_tax_payments": ("Withholding Tax Payments", {C, D}),
    "sales_tax_payments": ("Sales Tax Payments", {C, D}),
    "suppliers": ("Suppliers", {C, U, D}),
    "employees": ("Employees", {C, U, D}),
    "pay_runs": ("Pay Runs", {C, U, D}),
    "salary_payments": ("Pay Run Salary Payment", {C, D}),
    "payrun_tier1_payments": ("Pay Run Tier 1 Payment", {C, D}),
    "payrun_tier2_payments": ("Pay Run Tier 2 Payment", {C, D}),
    "payrun_tier3_payments": ("Pay Run Tier 3 Payment", {C, D}),
    "payrun_income_tax_payments": ("Pay Run Income Tax Payment", {C, D}),
    "products_services": ("Products / Services", {C, U, D}),
    "wallet_transactions": ("Wallet Transactions", {C}),
    "bank_transfers": ("Bank Transfers", {C, U, D}),
    "accounts": ("Accounts", {C, U, D}),
    "journals": ("Journals", {C, U, D}),
    "business_loans": ("Business Loans", {C, U, D}),
    "ledgers": ("Ledgers", {C, U, D}),
}


@pytest.fixture(scope="module")
def catalog() -> catalogs.Catalog:
    return catalogs.load(CATALOG, root=CATALOG.parent)


def test_exactly_the_promised_channels_titles_and_events(catalog: catalogs.Catalog) -> None:
    found = {name: (channel.title, set(channel.events)) for name, channel in catalog.channels.items()}

    assert found == PROMISED
    assert len(found) == 31


def test_every_channel_is_the_resource_of_its_name(catalog: catalogs.Catalog) -> None:
    named = {name: (channel.model, channel.schema) for name, channel in catalog.channels.items()}

    assert named == {
        name: (
            f"example_app.models:{resource.model.__name__}",
            f"example_app.schemas:{resource.schema.__name__}",
        )
        for name, resource in RESOURCES.items()
    }


def test_a_business_owns_itself_and_everything_else(catalog: catalogs.Catalog) -> None:
    owners = {name: channel.owner for name, channel in catalog.channels.items()}

    assert owners.pop("business") == ("id",)
    assert set(owners.values()) == {("business_id",)}


def test_ledgers_alone_are_exclusive(catalog: catalogs.Catalog) -> None:
    exclusive = {name: channel.exclusive for name, channel in catalog.channels.items() if channel.exclusive}

    assert exclusive == {"ledgers": "subscription"}


def test_a_deleted_loan_has_a_text(catalog: catalogs.Catalog) -> None:
    event = catalog.channels["business_loans"].events["deleted"]

    assert event.message == "Business Loan deleted successfully."


@pytest.mark.parametrize("name", PROMISED)
def test_webhooks_and_the_api_offer_the_same_includes(catalog: catalogs.Catalog, name: str) -> None:
    offered = RESOURCES[name].schema.includes()

    assert set(catalog.channels[name].includes) == offered
    assert offered <= set(inspect(RESOURCES[name].model).relationships.keys())


def test_invoices_offer_the_includes_that_are_documented(catalog: catalogs.Catalog) -> None:
    documented = {"bank_account", "invoice_user", "invoice_prefix", "line_items"}

    assert documented <= set(catalog.channels["invoices"].includes)


def test_no_schema_lets_a_password_out() -> None:
    fields = {name: list(resource.schema().fields) for name, resource in RESOURCES.items()}

    assert "password" not in json.dumps(fields)
