"""A small accounting product, built on Flask-Webhooks the way a customer of the extension would."""
