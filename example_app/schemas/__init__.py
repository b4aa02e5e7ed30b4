"""How each record looks in JSON: to the API and, by the same schema, to receivers of webhooks."""

from .banking import (
    BankAccountSchema,
    BankTransferSchema,
    BusinessLoanSchema,
    WalletTransactionSchema,
)
from .books import (
    AccountSchema,
    JournalLineSchema,
    JournalSchema,
    LedgerSchema,
)
from .parties import (
    BusinessSchema,
    ClientSchema,
    EmployeeSchema,
    SupplierSchema,
    UserSchema,
)
from .payments import (
    PricedLineSchema,
)
from .payroll import (
    IncomeTaxPaymentSchema,
    PayrunIncomeTaxPaymentSchema,
    PayRunSchema,
    PayrunTier1PaymentSchema,
    PayrunTier2PaymentSchema,
    PayrunTier3PaymentSchema,
    PayslipSchema,
    SalaryPaymentSchema,
    SalesTaxPaymentSchema,
    WithholdingTaxPaymentSchema,
)
from .purchases import (
    BillOnlinePaymentSchema,
    BillPaymentSchema,
    BillSchema,
    ExpenseSchema,
    ProductServiceSchema,
)
from .records import (
    RecordSchema,
)
from .sales import (
    DepositSchema,
    InvoiceOnlinePaymentSchema,
    InvoicePaymentSchema,
    InvoicePrefixSchema,
    InvoiceSchema,
    OtherIncomeSchema,
    QuoteSchema,
    SaleSchema,
)

__all__ = [
    "AccountSchema",
    "BankAccountSchema",
    "BankTransferSchema",
    "BillOnlinePaymentSchema",
    "BillPaymentSchema",
    "BillSchema",
    "BusinessLoanSchema",
    "BusinessSchema",
    "ClientSchema",
    "DepositSchema",
    "EmployeeSchema",
    "ExpenseSchema",
    "IncomeTaxPaymentSchema",
    "InvoiceOnlinePaymentSchema",
    "InvoicePaymentSchema",
    "InvoicePrefixSchema",
    "InvoiceSchema",
    "JournalLineSchema",
    "JournalSchema",
    "LedgerSchema",
    "OtherIncomeSchema",
    "PayRunSchema",
    "PayrunIncomeTaxPaymentSchema",
    "PayrunTier1PaymentSchema",
    "PayrunTier2PaymentSchema",
    "PayrunTier3PaymentSchema",
    "PayslipSchema",
    "PricedLineSchema",
    "ProductServiceSchema",
    "QuoteSchema",
    "RecordSchema",
    "SalaryPaymentSchema",
    "SaleSchema",
    "SalesTaxPaymentSchema",
    "SupplierSchema",
    "UserSchema",
    "WalletTransactionSchema",
    "WithholdingTaxPaymentSchema",
]
