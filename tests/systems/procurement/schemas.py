"""What the API's GET of each resource returns; `data` is exactly that."""

from __future__ import annotations

from marshmallow import Schema, fields


class FreelancerSchema(Schema):
    id = fields.Integer()
    name = fields.String()


class MilestoneSchema(Schema):
    id = fields.Integer()
    title = fields.String()
    amount = fields.Decimal(places=2, as_string=True)
    status = fields.String()


class OfferSchema(Schema):
    id = fields.Integer()
    title = fields.String()
    status = fields.String()
    freelancer = fields.Nested(FreelancerSchema)
    milestones = fields.List(fields.Nested(MilestoneSchema))


class InvoiceSchema(Schema):
    id = fields.Integer()
    number = fields.String()
    amount = fields.Decimal(places=2, as_string=True)
    status = fields.String()
    milestone_id = fields.Integer()
