"""An ERP: invoices with lines, prefixes and bank accounts, payments, expenses, clients and users."""
