"""The JSON API: every resource of the registry, and the steps that invoices and bills go through.

==========================================  =============================================================
``GET    /api/<resource>``                  ``{"items", "page", "per_page", "total"}``, newest first
``POST   /api/<resource>``                  201 and the record
``GET    /api/<resource>/<id>``             the record
``PATCH  /api/<resource>/<id>``             the record as it is now; lines, if given, replace the old ones
``DELETE /api/<resource>/<id>``             204
``POST   /api/invoices/<id>/<action>``      ``send``, ``pay`` or ``void``; the invoice as it is now
``POST   /api/bills/<id>/pay``              the bill as it is now
==========================================  =============================================================

A record is exactly what its schema dumps, which is also the ``data`` of its webhook. ``?include=client,line_items``
adds related records, under the names that webhooks use.
"""

from __future__ import annotations

import typing as t

import sqlalchemy as sa
from flask import Blueprint, abort, g, request, url_for
from flask.typing import ResponseReturnValue
from marshmallow import ValidationError
from sqlalchemy.orm import selectinload
from werkzeug.exceptions import MethodNotAllowed

from . import crud, problems
from .actions import ACTIONS
from .auth import check_csrf, current_user
from .channels import RESOURCES, Resource
from .database import begin_request
from .models import Tagged, db

bp = Blueprint("api", __name__, url_prefix="/api")
problems.answer_in_json(bp)
bp.before_request(begin_request)

LARGEST_PAGE = 100


@bp.before_request
def require_user() -> None:
    user = current_user()
    if user is None:
        abort(401, "Sign in, or send an API token as `Authorization: Bearer <token>`.")
    g.business_id = user.business_id
    check_csrf()


@bp.get("/<name>")
def list_records(name: str) -> ResponseReturnValue:
    resource, include = _resource(name), _include(name)
    query = sa.select(resource.model).where(resource.owner == g.business_id)
    query = query.options(*(selectinload(getattr(resource.model, wanted)) for wanted in include))
    page = db.paginate(query.order_by(resource.model.id.desc()), max_per_page=LARGEST_PAGE, error_out=False)
    return {
        "items": resource.schema(include=include).dump(page.items, many=True),
        "page": page.page,
        "per_page": page.per_page,
        "total": page.total,
    }


@bp.post("/<name>")
def create_record(name: str) -> ResponseReturnValue:
    resource = _resource(name)
    values = resource.schema().load(request.get_json())
    record = resource.model(business_id=g.business_id)
    crud.write(record, values, g.business_id)
    db.session.add(record)
    db.session.commit()
    location = url_for("api.get_record", name=name, record_id=record.id)
    return _dump(resource, record), 201, {"Location": location}


@bp.get("/<name>/<int:record_id>")
def get_record(name: str, record_id: int) -> ResponseReturnValue:
    resource = _resource(name)
    record = crud.find(resource, record_id, g.business_id)
    return _dump(resource, record, include=_include(name))


@bp.patch("/<name>/<int:record_id>")
def update_record(name: str, record_id: int) -> ResponseReturnValue:
    resource = _resource(name)
    schema = resource.schema()
    # Named one by one: `partial=True` would let the lines be incomplete as well.
    values = schema.load(request.get_json(), partial=tuple(schema.fields))
    record = crud.find(resource, record_id, g.business_id, lock=True)
    crud.write(record, values, g.business_id)
    db.session.commit()
    return _dump(resource, record)


@bp.delete("/<name>/<int:record_id>")
def delete_record(name: str, record_id: int) -> ResponseReturnValue:
    record = crud.find(_resource(name), record_id, g.business_id, lock=True)
    db.session.delete(record)
    db.session.commit()
    return "", 204


@bp.post("/invoices/<int:record_id>/<any(send, pay, void):action>", defaults={"name": "invoices"})
@bp.post("/bills/<int:record_id>/<any(pay):action>", defaults={"name": "bills"})
def act(name: str, record_id: int, action: str) -> ResponseReturnValue:
    resource = _resource(name)
    record = crud.find(resource, record_id, g.business_id, lock=True)
    ACTIONS[name][action](record)
    db.session.commit()
    return _dump(resource, record)


def _resource(name: str) -> Resource:
    resource = RESOURCES.get(name)
    if resource is None:
        abort(404, f"There is no resource {name!r}.")
    if request.method not in {*resource.methods, "HEAD"}:
        raise MethodNotAllowed(sorted(resource.methods), f"{resource.title} cannot be changed in this way.")
    return resource


def _include(name: str) -> list[str]:
    wanted = [part for part in request.args.get("include", "").split(",") if part]
    offered = RESOURCES[name].schema.includes()
    if unknown := sorted(set(wanted) - offered):
        raise ValidationError(f"Not offered here: {', '.join(unknown)}.", "include")
    return wanted


def _dump(resource: Resource, record: Tagged, include: t.Collection[str] = ()) -> dict[str, t.Any]:
    return t.cast("dict[str, t.Any]", resource.schema(include=include).dump(record))
