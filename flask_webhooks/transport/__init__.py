"""Talks HTTP to receivers; the only room that imports requests and urllib3.

The law of this room: a receiver's failure is data, never an exception; no receiver can make us connect to an internal
address, hold a thread past the deadline, or use more memory than `response_limit` allows.

===============  ================================================================================
`client`         checks a destination; sends one request and reads the answer
`urls`           the form of a destination
`development`    plain http to loopback on a developer's machine
`addresses`      which networks are refused
`dns`            resolves host names within a time limit
`dialer`         opens a socket, only to an address that the guard has accepted
`certificates`   client certificates and certificate authorities
`contexts`       TLS contexts, one for each client certificate
`connections`    idle connections, and the pools of requests and urllib3 around them
`exchange`       one request in flight: deadline and measurements
`deadline`       the thread that ends requests at their deadline
`request`        the request to make, and the form in which it is sent
`response`       reads an answer within bounds of size
`reply`          the outcome: an answer, or the class of the failure
`outage`         whether a failure is a fault of the receiver or of our own side
`refusal_log`    logs for the operator what the guard refused
===============  ================================================================================
"""

from __future__ import annotations

from .addresses import effective, parse_address
from .certificates import CertificateError, ClientCertificate, bundle_fault, parse_client_certificate
from .client import Transport
from .reply import Reply, Timings
from .request import ACCEPT_ENCODING, Outbound, is_token
from .urls import REFUSED, as_sent

__all__ = [
    "ACCEPT_ENCODING",
    "REFUSED",
    "CertificateError",
    "ClientCertificate",
    "Outbound",
    "Reply",
    "Timings",
    "Transport",
    "as_sent",
    "bundle_fault",
    "effective",
    "is_token",
    "parse_address",
    "parse_client_certificate",
]
