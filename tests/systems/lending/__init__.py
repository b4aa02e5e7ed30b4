"""An invoice financing API: sellers submit invoices, the financer verifies and pays them."""
