"""Every sentence that refuses a request of a customer: its code, its English text, and what to do about it.

The law of this room: the meaning of a code never changes, because programs and translations depend on it. The English
text is the key of the console's translations, which must name the same parameters. `python -m tests.error_codes` writes
`docs/error-codes.md` from this table.
"""

from __future__ import annotations

import typing as t

__all__ = ["N_", "SENTENCES", "Sentence"]


def N_(text: str) -> str:
    """Mark a text that the console translates when it shows it: pybabel extracts the arguments of this name."""
    return text


class Sentence(t.NamedTuple):
    """The sentence of one code."""

    english: str
    """The text, with `%(name)s` for each parameter."""
    remedy: str
    """What the caller can do about it."""


SENTENCES: t.Final[t.Mapping[str, Sentence]] = {
    # ---- the URL ----
    "url_not_text": Sentence("Give a URL such as https://example.com/hooks.", "Send the URL as text."),
    "url_too_long": Sentence("The URL is longer than %(most)s characters.", "Use a shorter path or query."),
    "url_characters": Sentence(
        "The URL must not contain spaces, control or invisible characters, or backslashes.",
        "Write such a character percent-encoded (`%20`), or leave it out.",
    ),
    "url_fragment": Sentence(
        "The URL must not have a fragment (#...): it never reaches a server.",
        "Leave out everything from `#` on.",
    ),
    "url_scheme": Sentence("The URL must begin with https://.", "Send the whole URL, with its scheme."),
    "url_http": Sentence(
        "The URL must begin with https://: plain http is switched off here.",
        "Use https, or ask the operator for `WEBHOOKS_ALLOW_HTTP` in development.",
    ),
    "url_credentials": Sentence(
        "The URL must not contain a user name or password: use a header of the subscription.",
        'Send them as `headers: {"Authorization": "Basic …"}`.',
    ),
    "url_form": Sentence(
        "The URL must have the form https://host/path or https://host:port/path.",
        "Look at the host and the port.",
    ),
    "url_port": Sentence("The port must be a number from 1 to 65535.", "Correct the port, or leave it out."),
    "url_low_port": Sentence(
        "Port %(port)s cannot be used for webhooks: of those below 1024, only 80 and 443 can be.",
        "Receive on 443 or on a port above 1023; an operator may allow more by `WEBHOOKS_ALLOWED_PORTS`.",
    ),
    "url_service_port": Sentence(
        "Port %(port)s cannot be used for webhooks: it is the port of %(service)s.",
        "Receive on another port; an operator may allow more by `WEBHOOKS_ALLOWED_PORTS`.",
    ),
    "url_brackets": Sentence(
        "The brackets of the URL do not hold an IPv6 address.", "Write it as `https://[2001:db8::1]/`."
    ),
    "url_ipv4": Sentence(
        "The host looks like an IP address: write it as four decimal numbers.",
        "Write `192.0.2.1`: no octal, hexadecimal or shortened form.",
    ),
    "url_host": Sentence("The host is not a valid name: check its spelling.", "Correct the host."),
    "url_international_host": Sentence(
        "The host is not a valid international name: check its spelling.",
        "Correct the host, or write it in its ASCII form (`xn--…`).",
    ),
    "url_refused": Sentence(
        "This address cannot be used for webhooks: use one that is reachable from the public internet.",
        "Check that the name exists and leads to a public address; no other reason is ever given.",
    ),
    # ---- what is listened to ----
    "not_a_list": Sentence("Give a list.", "Send a JSON array."),
    "too_many_listeners": Sentence(
        "There are %(count)s listeners; at most %(most)s are allowed.",
        "Name whole channels (`invoices.*`), or make several subscriptions.",
    ),
    "no_listeners": Sentence(
        'Name at least one event, such as "invoices.created", "invoices.*" or "*".',
        "Send `events` or `channels`.",
    ),
    "event_not_text": Sentence("Name the event as text.", "Send the name of an event type or a pattern."),
    "channel_not_text": Sentence("Name the channel as text.", "Send the name of a channel."),
    "unknown_event": Sentence(
        "There is no event %(name)s in the catalogue.", "Look up the names at `GET /catalog`."
    ),
    "misspelt_event": Sentence(
        'There is no event %(name)s in the catalogue. Did you mean "%(near)s"?', "Correct the name."
    ),
    "unknown_channel": Sentence(
        "There is no channel %(name)s in the catalogue.", "Look up the names at `GET /catalog`."
    ),
    "misspelt_channel": Sentence(
        'There is no channel %(name)s in the catalogue. Did you mean "%(near)s"?', "Correct the name."
    ),
    "too_many_includes": Sentence(
        "There are %(count)s names; at most %(most)s are allowed.", "Name each include once."
    ),
    "unknown_include": Sentence(
        "%(name)s is no include of the channel %(channel)s. There are: %(known)s.",
        "Take one that every channel of the pattern has.",
    ),
    "exclusive_alone": Sentence(
        'The channel "%(channel)s" is exclusive: a subscription that listens to it may listen to nothing else. It '
        'cannot be held together with %(others)s. To take "%(channel)s", unsubscribe from %(patterns)s; to keep '
        "those, unsubscribe from %(channel)s.*.",
        "Make two subscriptions.",
    ),
    "exclusive_here": Sentence(
        'The channel "%(channel)s" is exclusive: while one subscription listens to it, no other of the same owner may '
        "listen to anything else. The owner's other active subscriptions hold %(others)s: unsubscribe them from "
        '%(patterns)s first, or leave "%(channel)s" out here.',
        "Change or switch off the other subscriptions first.",
    ),
    "exclusive_elsewhere": Sentence(
        'The channel "%(channel)s" is exclusive: while one subscription listens to it, no other of the same owner may '
        'listen to anything else. Another active subscription holds "%(channel)s": unsubscribe that from '
        "%(channel)s.* first, or leave %(patterns)s out here.",
        "Change or switch off the other subscription first.",
    ),
    # ---- the other fields ----
    "description_text": Sentence(
        "Give text of at most %(most)s characters, without NUL.", "Shorten the description."
    ),
    "no_owner": Sentence("Say whose it is.", "Send `owner`: only operators have to."),
    "unfit_owner": Sentence(
        "No account can have this owner key.",
        "Send what your principal loader gives as `owner`: text that is not empty.",
    ),
    "no_environment": Sentence(
        "Say which: %(known)s.", "Send `environment`: this app decides it for each event."
    ),
    "unknown_environment": Sentence("Give one of %(known)s.", "Send one of the two names."),
    "environment_fixed": Sentence(
        "It is fixed when a subscription is made: make another one there.",
        "Leave `environment` out of a change.",
    ),
    "not_a_flag": Sentence("Give true or false.", "Send a JSON boolean."),
    "unknown_format": Sentence(
        "%(name)s is no format. There are: %(known)s.", "Look up the formats at `GET /catalog`."
    ),
    "format_not_offered": Sentence(
        "%(name)s is not offered for %(events)s. Offered: %(allowed)s.",
        "Take a format that all events offer, or null for what the catalogue gives each.",
    ),
    "no_format_in_common": Sentence(
        "%(name)s is not offered for %(events)s. Offered: none.",
        "Make a subscription for each format, or send null for what the catalogue gives each event.",
    ),
    "unknown_schedule": Sentence(
        "%(given)s is no retry schedule. Use 'standard', 'none', or a list of at most %(count)s waits in seconds, "
        "each from 0 to %(most)s, such as [5, 300, 3600].",
        "Correct `retry`, or send null for the schedule of the catalogue.",
    ),
    "schedule_too_fast": Sentence(
        "The waits are too short: give at least %(least)s second each, and from wait %(many)s on at least "
        "%(more)s.",
        "Send longer waits.",
    ),
    "number_range": Sentence(
        "Give a number from %(least)s to %(most)s, or null.",
        "Send a number in this range; the description of the field has its unit.",
    ),
    "headers_not_an_object": Sentence(
        'Give an object of names and values, such as {"X-Api-Key": "…"}.', "Send a JSON object."
    ),
    "too_many_headers": Sentence(
        "There are %(count)s headers; at most %(most)s are allowed.",
        "Remove some: null as a value removes one.",
    ),
    "header_name": Sentence(
        "%(name)s is no header name: use letters, digits and hyphens, at most %(most)s.", "Correct the name."
    ),
    "header_reserved": Sentence(
        "%(name)s cannot be set: it belongs to the connection or to the webhook itself.",
        "Take another name, such as `X-Api-Key` or `Authorization`.",
    ),
    "header_value_not_text": Sentence(
        "The value of %(name)s must be text.", "Send text, or null to remove the header."
    ),
    "header_value": Sentence(
        "The value of %(name)s must be printable ASCII without line breaks, without spaces at its ends, at most "
        "%(most)s characters.",
        "Encode other characters, for example as base64.",
    ),
    "header_twice": Sentence(
        "A name is there twice: the case of its letters does not matter, nor whether it has - or _.",
        "Send each name once.",
    ),
    "headers_too_large": Sentence(
        "Names and values have %(size)s characters together; at most %(most)s are allowed.",
        "Remove or shorten some.",
    ),
    "metadata_not_an_object": Sentence("Give an object.", "Send a JSON object."),
    "metadata_not_json": Sentence("%(reason)s", "Keep to what JSON can hold."),
    "metadata_too_large": Sentence(
        "It has %(size)s bytes of JSON; at most %(most)s are allowed.",
        "Keep a reference to the data instead of the data.",
    ),
    "metadata_too_deep": Sentence("It is nested deeper than %(most)s levels.", "Send a flatter object."),
    "metadata_nul": Sentence("Text with a NUL character cannot be kept.", "Remove `\\u0000`."),
    # ---- secrets and certificates ----
    "unknown_signature": Sentence(
        'Give "v1" (HMAC-SHA256) or "v1a" (ed25519).', "Send one of the two, or leave it out for `v1`."
    ),
    "secret_prefix": Sentence(
        "A signing secret begins with whsec_ or whsk_. Take it as it was shown, prefix included.",
        "Send the whole secret, or leave it out to have one made.",
    ),
    "secret_base64": Sentence(
        "What follows %(prefix)s is not base64 (with padding, no spaces). Was it cut off?",
        "Send the whole secret, or leave it out to have one made.",
    ),
    "secret_length": Sentence(
        "The secret has %(size)s bytes. A whsec_ secret has %(least)s to %(most)s: generate a new one.",
        "Leave it out to have one made.",
    ),
    "private_key_length": Sentence(
        "The private key has %(size)s bytes. An ed25519 key in whsk_ has 32.",
        "Leave it out to have one made.",
    ),
    "private_key_halves": Sentence(
        "The two halves of the whsk_ key do not belong together. Generate a new key.",
        "Send the 32 bytes of the seed alone, or leave the key out to have one made.",
    ),
    "secret_of_other_scheme": Sentence(
        "It does not fit the signature scheme %(scheme)s. Leave it out to have one made.",
        "`v1` takes `whsec_`, `v1a` takes `whsk_`.",
    ),
    "secret_guessable": Sentence(
        "It is not random enough to be a secret. Leave it out to have one made.",
        "Take random bytes, not a word or a pattern.",
    ),
    "secret_in_force": Sentence("This secret is in force already.", "Rotate to another secret."),
    "too_many_secrets": Sentence(
        "%(count)s secrets are in force already. Wait for one to run out, or give the overlap 0.",
        "Rotate less often, or with a shorter overlap.",
    ),
    "overlap_range": Sentence("Give seconds from 0 to %(most)s (7 days).", "Send an overlap in this range."),
    "certificate_without_tls": Sentence(
        "A client certificate is for https: the subscription sends to plain http.", "Change the URL first."
    ),
    "certificate_too_long": Sentence(
        "The certificate or the key has more than %(most)s characters.", "Give the chain without its root."
    ),
    "certificate_unreadable": Sentence(
        "The certificate cannot be read. Give PEM: -----BEGIN CERTIFICATE-----, ours first, then its chain.",
        "Convert it: `openssl x509 -in cert.der -inform DER`.",
    ),
    "certificate_key_unreadable": Sentence(
        "The key cannot be read. Give PEM: -----BEGIN PRIVATE KEY-----, not encrypted.",
        "Convert it: `openssl pkey -in key.pem`.",
    ),
    "certificate_key_encrypted": Sentence(
        "The key is encrypted. Take its passphrase off: openssl pkey -in key.pem -out clear.pem. It is sealed here.",
        "Give the key without a passphrase.",
    ),
    "certificate_of_other_key": Sentence(
        "The key does not belong to the certificate. The certificate of the key must come first in its file.",
        "Compare the public keys: `openssl pkey -pubout` and `openssl x509 -pubkey`.",
    ),
    "certificate_expired": Sentence("The certificate has expired on %(date)s.", "Have a new one issued."),
    "certificate_not_yet_valid": Sentence(
        "The certificate is valid from %(date)s on.", "Wait until then; compare the clocks."
    ),
    "certificate_not_for_clients": Sentence(
        "The certificate is not made for clients: its extended key usage lacks clientAuth.",
        "Have one issued with `clientAuth`.",
    ),
    "certificate_refused": Sentence(
        "OpenSSL does not take it: %(reason)s.", "Have one issued with a stronger key or signature."
    ),
    # ---- the subscription as a whole ----
    "many_mistakes": Sentence(
        "The subscription cannot be accepted: see %(fields)s.", "Read the mistakes of each field."
    ),
    "unfit_text": Sentence(
        "A text has characters that the database of this app cannot keep. Leave out emoji and the like.",
        "Leave them out; the operator may change the character set of the database to utf8mb4.",
    ),
    "too_many_subscriptions": Sentence(
        "There are %(count)s subscriptions in %(name)s already, which is the limit. Remove one first.",
        "Remove one, or ask the operator for a larger `WEBHOOKS_SUBSCRIPTION_LIMIT`.",
    ),
    "no_subscription": Sentence(
        "There is no such subscription.", "Check the id: what belongs to another owner is not there either."
    ),
    "changed_since": Sentence(
        "The subscription is at version %(version)s by now: read it again, then repeat the change.",
        "Read it, merge your change, and send the new `ETag` as `If-Match`.",
    ),
    "changed_by_another": Sentence(
        "The subscription was changed by another request: read it again.",
        "Read it, merge your change, and send the new `ETag` as `If-Match`.",
    ),
    "changed_in_transaction": Sentence(
        "Subscriptions of %(owner)s were changed while your transaction ran. Roll it back, and do it again.",
        "Repeat the transaction.",
    ),
    "other_environment": Sentence(
        "The subscription is of %(environment)s, and this app does not send for that environment. Do it where "
        "%(environment)s runs, or add it to WEBHOOKS_SEND_ENVIRONMENTS.",
        "Ask the deployment of that environment.",
    ),
    "unknown_held": Sentence('Give "send" or "discard".', "Send one of the two."),
    "held_without_active": Sentence(
        'It says what becomes of held deliveries when switching on: give it with "active": true.',
        "Leave `held` out, or switch on in the same request.",
    ),
    "one_held": Sentence(
        '1 delivery is held. Say what becomes of that: "send" delivers now, "discard" cancels.',
        "Send `held` too.",
    ),
    "some_held": Sentence(
        '%(count)s deliveries are held. Say what becomes of that: "send" delivers now, "discard" cancels.',
        "Send `held` too.",
    ),
    "many_held": Sentence(
        '%(count)s deliveries or more are held. Say what becomes of that: "send" delivers now, "discard" cancels.',
        "Send `held` too.",
    ),
    "switched_off": Sentence(
        "The subscription is switched off. Switch it on first.", 'Send `"active": true` first.'
    ),
    # ---- replays and backfills ----
    "replay_running": Sentence(
        "The replay %(id)s is still running. Wait for its end, or cancel it.",
        "Follow it at `GET /replays/<id>`, or cancel it at `POST /replays/<id>/cancel`.",
    ),
    "does_not_listen": Sentence(
        "The subscription does not listen to %(event)s. Add it to its events first.", "Add the event first."
    ),
    "environment_of_app": Sentence(
        "The subscription is of %(environment)s, this app's WEBHOOKS_ENVIRONMENT is %(here)s. Run it where that "
        "environment is.",
        "Run the backfill in the deployment of that environment.",
    ),
    "no_channel_to_backfill": Sentence(
        "There is no channel %(channel)s: %(known)s.", "Correct the name of the channel."
    ),
    "channel_without_model": Sentence(
        "The channel %(channel)s has no model: its events come from code alone.",
        "Emit the events of its rows from your own code.",
    ),
    "channel_without_creation": Sentence(
        "The channel %(channel)s has no event for a new row.",
        "Add an event `on: created` without `when` to the catalogue.",
    ),
    # ---- too much at once; `Retry-After` says when to ask again ----
    "counts_too_often": Sentence(
        "Replays were counted too often in a short time.", "Wait, then count again."
    ),
    "requests_too_often": Sentence(
        "Too many tests, URL checks, retries and replays in a short time.",
        "Wait; replay many deliveries at once instead of retrying each.",
    ),
    "still_testing": Sentence(
        "Another test or URL check is still under way.", "Wait until the other has been answered."
    ),
    "still_resending": Sentence(
        "Other retries by hand or replays are not done yet.",
        "Wait until they have been attempted, or cancel a replay.",
    ),
    "created_too_many": Sentence(
        "%(most)s subscriptions were made within a day, which is the limit.",
        "Wait, or ask the operator for a larger `WEBHOOKS_CREATION_LIMIT`.",
    ),
    "keys_too_many": Sentence(
        "%(most)s idempotency keys are remembered already, which is the limit.",
        "Wait until the oldest of them is a day old, or send requests without a key.",
    ),
}
