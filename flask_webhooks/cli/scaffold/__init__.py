"""A first catalogue, made from the models that an app has: `flask webhooks init`.

==========  =================================================
`owners`    whose data a row is: one tenant for the whole app
`channels`  one model to what its channel could say
`writer`    all of it as YAML, with comments that teach
==========  =================================================
"""

from __future__ import annotations

from .channels import Sketch, sketch_all
from .owners import NoTenant, Tenancy
from .writer import Draft, draft

__all__ = ["Draft", "NoTenant", "Sketch", "Tenancy", "draft", "sketch_all"]
