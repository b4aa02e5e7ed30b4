from __future__ import annotations

import enum
import ipaddress
import itertools
import json
import math
import uuid
import zoneinfo
from collections import OrderedDict, deque
from dataclasses import replace
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from types import MappingProxyType

import pytest
from hypothesis import given
from hypothesis import strategies as st
from psycopg.types.multirange import Multirange
from psycopg.types.range import Range as PsycopgRange
from sqlalchemy.dialects.postgresql import Range
from sqlalchemy.dialects.postgresql.ranges import MultiRange

from flask_webhooks.errors import PayloadError
from flask_webhooks.payload import ENVELOPES, FORMATS, Message, Recipient, encode, render

ID = "0196f2a4-7c1e-7000-8000-000000000001"

MESSAGE = Message(
    id=ID,
    event="business_loans.deleted",
    channel="business_loans",
    name="deleted",
    text="Business Loan deleted successfully.",
    environment="staging",
    occurred_at=datetime(2026, 3, 1, 12, 0, 0, 42, tzinfo=UTC),
    sequence=7,
    owner="42",
    entity_type="business_loan",
    entity_id="9",
    transition=None,
    status=None,
    data={"id": 9, "tag": "BL-9", "lines": [{"amount": "10.50"}]},
)

RECIPIENT = Recipient(
    id="0196f2a4-7c1e-7000-8000-000000000002",
    url="https://example.com/hooks",
    description="",
    metadata={},
    format="acme",
    environment="staging",
    owner="42",
)


class Color(enum.Enum):
    RED = "red"


class Matrix:
    """Has `tolist`, as arrays of numpy and vectors have."""

    def __init__(self, rows):
        self.rows = rows

    def tolist(self):
        return self.rows


class Level(enum.IntEnum):
    HIGH = 3


class Word(enum.StrEnum):
    PAID = "paid"


class Amount(enum.Enum):
    TEN = Decimal("10.50")


class Photo:
    pass


class TestFormats:
    """The whole text of each body, so that neither a key nor its place changes unnoticed."""

    def test_channel(self):
        assert render("channel", MESSAGE, RECIPIENT) == (
            b'{"event":"business_loans.deleted","message":"Business Loan deleted successfully.",'
            b'"idempotency_key":"0196f2a4-7c1e-7000-8000-000000000001","environment":"staging",'
            b'"data":{"id":9,"tag":"BL-9","lines":[{"amount":"10.50"}]}}'
        )

    def test_standard(self):
        assert render("standard", replace(MESSAGE, event="invoice.created"), RECIPIENT) == (
            b'{"type":"invoice.created","timestamp":"2026-03-01T12:00:00.000042+00:00",'
            b'"data":{"id":9,"tag":"BL-9","lines":[{"amount":"10.50"}]}}'
        )

    def test_entity(self):
        message = replace(
            MESSAGE, event="Invoice.SUBMITTED", entity_type="invoice", transition="SUBMIT", status="SUBMITTED"
        )

        assert render("entity", message, RECIPIENT) == (
            b'{"entity_type":"invoice","transition_name":"SUBMIT","status":"SUBMITTED",'
            b'"timestamp":"2026-03-01T12:00:00.000042+00:00","id":"9","event_type":"Invoice.SUBMITTED",'
            b'"entity_state":{"id":9,"tag":"BL-9","lines":[{"amount":"10.50"}]}}'
        )

    def test_minimal(self):
        message = replace(MESSAGE, event="transactions.fetched", data={"count": 3})

        assert render("minimal", message, RECIPIENT) == b'{"event":"transactions.fetched","data":{"count":3}}'

    def test_a_whole_second_keeps_its_microseconds_and_offset(self):
        message = replace(MESSAGE, occurred_at=datetime(2026, 3, 1, tzinfo=UTC))

        assert (
            json.loads(render("standard", message, RECIPIENT))["timestamp"]
            == "2026-03-01T00:00:00.000000+00:00"
        )

    def test_text_is_utf_8_and_not_escaped(self):
        message = replace(MESSAGE, data={"client": "Ama ☕"})

        assert render("minimal", message, RECIPIENT).endswith('"data":{"client":"Ama ☕"}}'.encode())

    @pytest.mark.parametrize("name", FORMATS)
    def test_the_same_input_makes_the_same_bytes(self, name):
        again = replace(MESSAGE, data=json.loads(json.dumps(MESSAGE.data)))

        assert render(name, MESSAGE, RECIPIENT) == render(name, again, RECIPIENT)


class TestSlack:
    def body(self, **changes):
        return json.loads(render("slack", replace(MESSAGE, **changes), RECIPIENT))

    def test_shows_the_sentence_a_table_of_plain_fields_and_the_source(self):
        data = {
            "id": 9,
            "paid": True,
            "rate": 1.5,
            "note": None,
            "empty": " ",
            "lines": [1],
            "client": {"id": 1},
        }

        body = self.body(data=data)

        def text(words):
            return {"type": "mrkdwn", "text": words, "verbatim": True}

        assert body == {
            "text": "Business Loan deleted successfully.",
            "blocks": [
                {"type": "section", "text": text("*Business Loan deleted successfully.*")},
                {"type": "section", "fields": [text("*id*\n9"), text("*paid*\ntrue"), text("*rate*\n1.5")]},
                {"type": "context", "elements": [text(f"business_loans.deleted · staging · {ID}")]},
            ],
        }

    def test_escapes_what_slack_would_read_as_a_command(self):
        body = self.body(text="<!channel> R&D", data={"<@U1>": "<http://x|y> &amp;"})

        assert body["text"] == "&lt;!channel&gt; R&amp;D"
        assert body["blocks"][0]["text"]["text"] == "*&lt;!channel&gt; R&amp;D*"
        assert body["blocks"][1]["fields"][0]["text"] == "*&lt;@U1&gt;*\n&lt;http://x|y&gt; &amp;amp;"

    def test_without_plain_fields_there_is_no_empty_table(self):
        # Slack refuses a section without text and fields.
        assert [block["type"] for block in self.body(data={"lines": []})["blocks"]] == ["section", "context"]

    @given(
        text=st.text(max_size=50).map(lambda text: text * 200) | st.text("&<>a", max_size=4000),
        data=st.dictionaries(
            st.text("&<>b", min_size=1, max_size=700),
            st.text("&<>a☕", max_size=5000) | st.integers(),
            max_size=15,
        ),
    )
    def test_stays_within_slacks_limits_whatever_the_customer_typed(self, text, data):
        body = self.body(text=text, data=data)

        assert len(body["blocks"]) <= 50
        fields = [field for block in body["blocks"] for field in block.get("fields", ())]
        assert len(fields) <= 10
        assert all(len(field["text"]) <= 2000 for field in fields)
        texts = [body["text"], body["blocks"][0]["text"]["text"], *(field["text"] for field in fields)]
        assert all(len(words) <= 3000 for words in texts)
        for words in texts:
            bare = words.replace("&amp;", "").replace("&lt;", "").replace("&gt;", "")
            assert not set("&<>") & set(bare), "cut inside an escape, or not escaped"

    @pytest.mark.parametrize(
        ("value", "shown"),
        [
            ("a" * 300, "a" * 300),
            ("a" * 301, "a" * 299 + "…"),
            ("a" * 298 + "&", "a" * 298 + "…"),
            ("a" * 295 + "&", "a" * 295 + "&amp;"),
            ("a" * 297 + "&b", "a" * 297 + "…"),
        ],
        ids=["just fits", "too long", "escape does not fit", "escape just fits", "cut before the escape"],
    )
    def test_cuts_long_values(self, value, shown):
        assert self.body(data={"x": value})["blocks"][1]["fields"][0]["text"] == "*x*\n" + shown


class TestRender:
    def test_takes_the_apps_own_format(self):
        def acme(message, recipient):
            return {"kind": message.name, "to": recipient.url, "amount": Decimal("1.10")}

        assert (
            render(acme, MESSAGE, RECIPIENT)
            == b'{"kind":"deleted","to":"https://example.com/hooks","amount":"1.10"}'
        )

    def test_takes_any_mapping(self):
        assert render(lambda m, r: MappingProxyType({"a": 1}), MESSAGE, RECIPIENT) == b'{"a":1}'

    @pytest.mark.parametrize("returned", [None, [], "text", 1])
    def test_refuses_a_body_that_is_no_object(self, returned):
        with pytest.raises(PayloadError, match=r"The format 'acme' returned \w+\. Return a dict"):
            render(lambda m, r: returned, MESSAGE, RECIPIENT)

    def test_names_the_place_inside_the_body(self):
        with pytest.raises(PayloadError, match=r"^body\.photo is Photo;"):
            render(lambda m, r: {"photo": Photo()}, MESSAGE, RECIPIENT)

    def test_an_unknown_name_lists_the_known_ones(self):
        with pytest.raises(
            PayloadError, match=r"'acme'. There are: channel, standard, entity, minimal, slack"
        ):
            render("acme", MESSAGE, RECIPIENT)


class TestEncode:
    @pytest.mark.parametrize(
        ("value", "text"),
        [
            (Decimal("10.50"), '"10.50"'),
            (Decimal("1E+3"), '"1E+3"'),
            (date(2026, 3, 1), '"2026-03-01"'),
            (time(9, 30), '"09:30:00"'),
            (datetime(2026, 3, 1, 12, tzinfo=UTC), '"2026-03-01T12:00:00+00:00"'),
            (
                datetime(2026, 3, 1, 12, 0, 0, 5, timezone(timedelta(hours=2))),
                '"2026-03-01T12:00:00.000005+02:00"',
            ),
            (datetime(2026, 3, 1, 12), '"2026-03-01T12:00:00"'),  # noqa: DTZ001
            (uuid.UUID(int=1), '"00000000-0000-0000-0000-000000000001"'),
            (Color.RED, '"red"'),
            (Level.HIGH, "3"),
            (Word.PAID, '"paid"'),
            (Amount.TEN, '"10.50"'),
            ({"b": 1, "a": [True, None, (1.5, "é")]}, '{"b":1,"a":[true,null,[1.5,"é"]]}'),
            (OrderedDict(z=1, a=2), '{"z":1,"a":2}'),
            ({1: "a", None: "b"}, '{"1":"a","null":"b"}'),
            ("\u2028\0", '"\u2028\\u0000"'),
            (2**70, "1180591620717411303424"),
        ],
        ids=repr,
    )
    def test_writes(self, value, text):
        assert encode(value) == text

    @pytest.mark.parametrize(
        ("value", "text"),
        [
            (ipaddress.ip_address("10.0.0.1"), '"10.0.0.1"'),
            (ipaddress.ip_network("10.0.0.0/8"), '"10.0.0.0/8"'),
            (ipaddress.ip_interface("::1/64"), '"::1/64"'),
            (timedelta(minutes=2, milliseconds=5), "120.005"),
            (b"\xff\xfe", '"//4="'),
            (memoryview(b"a"), '"YQ=="'),
            (Range(1, 5), '{"lower":1,"upper":5,"bounds":"[)"}'),
            (Range(None, date(2026, 3, 1), bounds="(]"), '{"lower":null,"upper":"2026-03-01","bounds":"(]"}'),
            (Range(empty=True), '{"lower":null,"upper":null,"bounds":"empty"}'),
            (MultiRange([Range(1, 2)]), '[{"lower":1,"upper":2,"bounds":"[)"}]'),
            (PsycopgRange(Decimal(1), None, "(]"), '{"lower":"1","upper":null,"bounds":"()"}'),
            (PsycopgRange(empty=True), '{"lower":null,"upper":null,"bounds":"empty"}'),
            (Multirange([PsycopgRange(1, 2)]), '[{"lower":1,"upper":2,"bounds":"[)"}]'),
            ({"b", "a", "é"}, '["a","b","é"]'),
            ({10, 9, 1}, "[1,9,10]"),
            (frozenset({frozenset({2, 1})}), "[[1,2]]"),
            (deque([1, (2,)]), "[1,[2]]"),
            ({"a": 1}.keys(), '["a"]'),
            (MappingProxyType({"a": {b"x"}}), '{"a":["eA=="]}'),
            (zoneinfo.ZoneInfo("Europe/Berlin"), '"Europe/Berlin"'),
            (Path("/a/b"), '"/a/b"'),
            (Matrix([[1.5, 2.0]]), "[[1.5,2.0]]"),
        ],
        ids=map(str, itertools.count()),
    )
    def test_writes_what_has_one_obvious_form(self, value, text):
        for data in (value, [value], {"a": (value,)}, {uuid.UUID(int=7): value}):
            assert text in encode(data)

    def test_keys_that_are_no_text_are_written_as_values_are(self):
        data = {Color.RED: 1, Level.HIGH: 2, uuid.UUID(int=1): {date(2026, 3, 1): Decimal("1.0")}, 5: None}

        assert encode(data) == (
            '{"red":1,"3":2,"00000000-0000-0000-0000-000000000001":{"2026-03-01":"1.0"},"5":null}'
        )

    def test_values_of_sqlalchemy_utils_are_as_their_columns_have_them(self):
        utils = pytest.importorskip("sqlalchemy_utils")
        colour = pytest.importorskip("colour")

        assert (
            encode(
                [
                    utils.Choice("a", "A"),
                    utils.Ltree("a.b"),
                    colour.Color("red"),
                    utils.PhoneNumber("+491701234567"),
                ]
            )
            == '["a","a.b","#f00","+491701234567"]'
        )

    @pytest.mark.parametrize(
        ("data", "message"),
        [
            (Photo(), "data is Photo; convert it, or give the channel a schema that does."),
            (
                {"lines": [0, 1, 2, {"photo": Photo()}]},
                "data.lines[3].photo is Photo; convert it, or give the channel a schema that does.",
            ),
            (
                {"a": ({"b c": Photo()},)},
                "data.a[0]['b c'] is Photo; convert it, or give the channel a schema that does.",
            ),
            ({"tags": {math.nan}}, "data.tags[] is nan; JSON has no such number, send None."),
            (
                {"m": MappingProxyType({"a": deque([Photo()])})},
                "data.m.a[0] is Photo; convert it, or give the channel a schema that does.",
            ),
            (
                {"between": Range(Photo(), None)},
                "data.between.lower is Photo; convert it, or give the channel a schema that does.",
            ),
            ({b"k": 1}, "data has the key b'k' of type bytes; use text as keys."),
            (
                {"a": {uuid.UUID(int=1): 1, str(uuid.UUID(int=1)): 2}},
                "data.a has two keys that are the same when they are written; use text as keys.",
            ),
            ({"rate": math.nan}, "data.rate is nan; JSON has no such number, send None."),
            ({"rate": -math.inf}, "data.rate is -inf; JSON has no such number, send None."),
            ({"rate": Decimal("NaN")}, "data.rate is Decimal('NaN'); JSON has no such number, send None."),
            (
                {"photo": Photo()},
                "data.photo is Photo; convert it, or give the channel a schema that does.",
            ),
            (
                {"name": "\ud83d"},
                "data.name is str; it holds half of a surrogate pair, which UTF-8 cannot carry.",
            ),
            ({(1, 2): 3}, "data has the key (1, 2) of type tuple; use text as keys."),
            ({"a": {math.nan: 3}}, "data.a has the key nan of type float; use text as keys."),
            (
                {"a": {"\ud83d": 3}},
                "data.a has the key '\\ud83d'; it holds half of a surrogate pair, which UTF-8 cannot carry.",
            ),
            ({10**5000: 3}, "data has the key … of type int; use text as keys."),
            ({"n": 10**5000}, "data.n is int; it has too many digits for Python to write, send it as text."),
            (
                {"ok": 1, "first": Photo(), "second": Photo()},
                "data.first is Photo; convert it, or give the channel a schema that does.",
            ),
        ],
        ids=lambda value: value[:30] if isinstance(value, str) else "-",
    )
    def test_names_the_place_and_the_remedy(self, data, message):
        with pytest.raises(PayloadError) as caught:
            encode(data)

        assert str(caught.value) == message

    def test_data_that_contains_itself_is_named(self):
        client = {"name": "Ama"}
        client["invoices"] = [{"client": client}]

        with pytest.raises(PayloadError, match=r"^data\.invoices\[0\]\.client contains itself; send its key"):
            encode(client)

    def test_the_same_object_twice_is_no_circle(self):
        line = {"a": 1}

        assert encode([line, line]) == '[{"a":1},{"a":1}]'

    def test_data_nested_without_end_is_refused(self):
        data: list[object] = []
        for _ in range(100_000):
            data = [data]

        with pytest.raises(PayloadError, match="nested more than 500 levels deep"):
            encode(data)

    JSON = st.recursive(
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats(allow_nan=False, allow_infinity=False)
        | st.text(),
        lambda inside: st.lists(inside) | st.dictionaries(st.text(), inside),
        max_leaves=20,
    )

    @given(JSON)
    def test_reads_back_as_what_it_was_and_writes_again_the_same(self, data):
        text = encode(data)

        assert json.loads(text) == data
        assert encode(json.loads(text)) == text

    BAD = st.sampled_from([b"", {1}, math.nan, Photo(), timedelta(1), {Photo()}, "\ud83d", Decimal("sNaN")])

    @given(
        st.recursive(JSON | BAD, lambda inside: st.lists(inside) | st.dictionaries(st.text("ab."), inside))
    )
    def test_whatever_it_is_given_it_writes_json_or_names_a_place(self, data):
        try:
            text = encode(data)
        except PayloadError as error:
            assert str(error).startswith("data")  # noqa: PT017
            assert " is " in str(error)  # noqa: PT017
        else:
            json.loads(text)
            text.encode()


@pytest.mark.parametrize("name", sorted(FORMATS.keys() - {"slack"}))
def test_the_documentation_describes_what_a_format_makes(name):
    properties, place = ENVELOPES[name]

    body = FORMATS[name](MESSAGE, RECIPIENT)

    assert body.keys() == {*properties, place}
    assert body[place] == MESSAGE.data
