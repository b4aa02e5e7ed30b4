"""What a receiver gets: the formats of bodies, and the one JSON encoder for all of them.

The law of this room: the same input makes the same bytes, always. Keys keep the order they were given in;
no clock, no randomness, no look-up.

In the order of time: `encode` freezes an event's data at commit; at delivery a *format* makes the body out of
a `Message` for one `Recipient`, and `render` turns it into the bytes that are signed and sent.

=========  ====================================================================
`formats`  the built-in formats, what they are given, and `render`
`encoder`  data to JSON text; where that fails, the place and what to do
`values`   what each class of values is written as
=========  ====================================================================
"""

from .encoder import encode
from .formats import ENVELOPES, FORMATS, Format, Message, Recipient, failed, render, timestamp
from .values import is_writable, ordered

__all__ = [
    "ENVELOPES",
    "FORMATS",
    "Format",
    "Message",
    "Recipient",
    "encode",
    "failed",
    "is_writable",
    "ordered",
    "render",
    "timestamp",
]
