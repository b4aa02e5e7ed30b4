"""A platform on which companies hire freelancers: offers, milestones, invoices."""
