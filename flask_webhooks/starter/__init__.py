"""A first catalogue, made from the models that an app has: `flask webhooks init`.

==========  ==============================================================
`owners`    which column says whose data a row is
`guessing`  one model to what its channel could say
`writing`   all of it as YAML, with comments that teach
==========  ==============================================================
"""

from __future__ import annotations

from .guessing import Sketch, sketch_all
from .writing import Draft, draft

__all__ = ["Draft", "Sketch", "draft", "sketch_all"]
