"""Outbound webhooks for Flask apps."""
