"""The model and the schema of each channel: the table that drives the API.

The names are those of the channels in ``catalog/accounting.yaml``.
"""

from __future__ import annotations

import typing as t
from dataclasses import dataclass

from . import models, schemas

if t.TYPE_CHECKING:
    from .models import Tagged
    from .schemas import RecordSchema

EVERY_METHOD = frozenset({"GET", "POST", "PATCH", "DELETE"})


@dataclass(frozen=True)
class Resource:
    """One kind of record, as the API offers it."""

    name: str
    model: type[Tagged]
    schema: type[RecordSchema]
    methods: frozenset[str] = EVERY_METHOD

    @property
    def owner(self) -> t.Any:
        """The column that says whose record it is."""
        return getattr(self.model, "business_id", None) or self.model.id

    @property
    def title(self) -> str:
        return self.name.replace("_", " ").capitalize()


def _resource(model: type[Tagged], schema: type[RecordSchema], **options: t.Any) -> tuple[str, Resource]:
    name = model.__tablename__
    return name, Resource(name, model, schema, **options)


RESOURCES: t.Final = dict(
    [
        # A business is opened by signing up and closed by support, neither of them through the API.
        _resource(models.Business, schemas.BusinessSchema, methods=frozenset({"GET", "PATCH"})),
        _resource(models.Invoice, schemas.InvoiceSchema),
        _resource(models.InvoicePayment, schemas.InvoicePaymentSchema),
        _resource(models.InvoiceOnlinePayment, schemas.InvoiceOnlinePaymentSchema),
        _resource(models.Sale, schemas.SaleSchema),
        _resource(models.Deposit, schemas.DepositSchema),
        _resource(models.Quote, schemas.QuoteSchema),
        _resource(models.OtherIncome, schemas.OtherIncomeSchema),
        _resource(models.Client, schemas.ClientSchema),
        _resource(models.Expense, schemas.ExpenseSchema),
        _resource(models.Bill, schemas.BillSchema),
        _resource(models.BillPayment, schemas.BillPaymentSchema),
        _resource(models.BillOnlinePayment, schemas.BillOnlinePaymentSchema),
        _resource(models.IncomeTaxPayment, schemas.IncomeTaxPaymentSchema),
        _resource(models.WithholdingTaxPayment, schemas.WithholdingTaxPaymentSchema),
        _resource(models.SalesTaxPayment, schemas.SalesTaxPaymentSchema),
        _resource(models.Supplier, schemas.SupplierSchema),
        _resource(models.Employee, schemas.EmployeeSchema),
        _resource(models.PayRun, schemas.PayRunSchema),
        _resource(models.SalaryPayment, schemas.SalaryPaymentSchema),
        _resource(models.PayrunTier1Payment, schemas.PayrunTier1PaymentSchema),
        _resource(models.PayrunTier2Payment, schemas.PayrunTier2PaymentSchema),
        _resource(models.PayrunTier3Payment, schemas.PayrunTier3PaymentSchema),
        _resource(models.PayrunIncomeTaxPayment, schemas.PayrunIncomeTaxPaymentSchema),
        _resource(models.ProductService, schemas.ProductServiceSchema),
        _resource(models.WalletTransaction, schemas.WalletTransactionSchema),
        _resource(models.BankTransfer, schemas.BankTransferSchema),
        _resource(models.Account, schemas.AccountSchema),
        _resource(models.Journal, schemas.JournalSchema),
        _resource(models.BusinessLoan, schemas.BusinessLoanSchema),
        _resource(models.Ledger, schemas.LedgerSchema),
    ]
)
"""Resources by the name of their channel, in the order the product shows them."""
