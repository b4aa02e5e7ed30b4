"""The body of a receiver's response as text: decompressed and decoded as its headers say, with notes where that fails.

The law of this module: the text is for people to read; no decision depends on it. A receiver chooses both the bytes and
the headers. So the result is bounded (`MOST_TEXT` bytes, `MOST_CODINGS` nested compressions), charsets come from a list
(some of Python's codecs are slow, or decompress), and no body raises.
"""

from __future__ import annotations

import codecs
import json
import re
import typing as t
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from encodings.aliases import aliases

from ..errors import N_
from ..models import Attempt

__all__ = ["NOTES", "Legible", "legible", "of_attempt"]

MOST_TEXT: t.Final = 32_768
"""Bytes that are decompressed: a kilobyte can be a bomb of a megabyte."""

MOST_CODINGS: t.Final = 3
"""Nested compressions that are removed."""

STEP: t.Final = 256
"""Compressed bytes that are decompressed at a time, so that the text before a damaged place is shown."""

NOTES: t.Final[Mapping[str, str]] = {
    "unknown_coding": N_("It is compressed as %(coding)s, which is not decompressed here."),
    "many_codings": N_("It is compressed more than %(most)s times, so it is not decompressed here."),
    "not_packed": N_(
        "Its headers say that it is compressed as %(coding)s, but it is not: it is shown as received."
    ),
    "broken": N_("The %(coding)s data is incomplete or damaged: only its beginning can be shown."),
    "trailing": N_("The %(coding)s data is followed by other bytes, which are left out."),
    "bomb": N_("Only the first %(most)s bytes are decompressed."),
    "unknown_charset": N_("The charset %(charset)s is unknown: it is read as UTF-8."),
    "not_text": N_("Some bytes are not valid %(charset)s and are shown as �."),
}
"""The sentences about a text, by key."""

_CHARSETS: t.Final = frozenset(
    "ascii utf_8 utf_16 utf_16_le utf_16_be utf_32 utf_32_le utf_32_be latin_1 iso8859_2 iso8859_3 iso8859_4 iso8859_5 "
    "iso8859_6 iso8859_7 iso8859_8 iso8859_9 iso8859_10 iso8859_11 iso8859_13 iso8859_14 iso8859_15 iso8859_16 cp437 "
    "cp850 cp852 cp866 cp874 cp932 cp949 cp1250 cp1251 cp1252 cp1253 cp1254 cp1255 cp1256 cp1257 cp1258 koi8_r koi8_u "
    "mac_roman mac_cyrillic shift_jis euc_jp iso2022_jp gb2312 gbk gb18030 big5 big5hkscs euc_kr tis_620 hz".split()
)
_BOMS: t.Final = (
    (codecs.BOM_UTF8, "utf_8"),
    (codecs.BOM_UTF32_LE, "utf_32_le"),  # begins like that of UTF-16
    (codecs.BOM_UTF32_BE, "utf_32_be"),
    (codecs.BOM_UTF16_LE, "utf_16_le"),
    (codecs.BOM_UTF16_BE, "utf_16_be"),
)
_LABELS: t.Final = {
    "utf_16_le": "utf16le",
    "iso8859_2": "iso88592",
    "iso8859_3": "iso88593",
    "iso8859_4": "iso88594",
    "iso8859_5": "iso88595",
    "iso8859_6": "csiso88596e csiso88596i iso88596 iso_8859_6_e iso_8859_6_i",
    "iso8859_7": "iso88597 sun_eu_greek",
    "iso8859_8": "csiso88598e csiso88598i iso88598 iso_8859_8_e iso_8859_8_i logical visual",
    "iso8859_10": "iso885910",
    "iso8859_13": "iso885913",
    "iso8859_14": "iso885914",
    "iso8859_15": "csisolatin9 iso885915",
    "koi8_r": "koi koi8",
    "koi8_u": "koi8_ru",
    "mac_roman": "csmacintosh mac x_mac_roman",
    "mac_cyrillic": "x_mac_cyrillic x_mac_ukrainian",
    "cp874": "dos_874 iso885911 windows_874",
    "cp1250": "x_cp1250",
    "cp1251": "x_cp1251",
    "cp1252": "x_cp1252",
    "cp1253": "x_cp1253",
    "cp1254": "x_cp1254",
    "cp1255": "x_cp1255",
    "cp1256": "x_cp1256",
    "cp1257": "x_cp1257",
    "cp1258": "x_cp1258",
    "latin_1": "iso88591",
    "iso8859_9": "iso88599",
    "gbk": "csgb2312 gb_2312 gb_2312_80 x_gbk",
    "big5hkscs": "cn_big5 x_x_big5",
    "euc_jp": "cseucpkdfmtjapanese x_euc_jp",
    "cp932": "windows_31j x_sjis",
    "cp949": "cseuckr csksc56011987 iso_ir_149 ks_c_5601_1989 ksc_5601 windows_949",
    "utf_8": "unicode11utf8 unicode20utf8 unicode_1_1_utf_8 x_unicode20utf8",
    "utf_16_be": "utf16be unicodefffe",
    "utf_16": "csunicode iso_10646_ucs_2 ucs_2 unicode unicodefeff",
}
"""Labels of the Encoding Standard (https://encoding.spec.whatwg.org/#names-and-labels) that Python does not know."""
_ALIASES: t.Final[Mapping[str, str]] = {
    **aliases,
    **{label: charset for charset, labels in _LABELS.items() for label in labels.split()},
    "x_windows_949": "cp949",
    "utf8mb3": "utf_8",
    "utf8mb4": "utf_8",
    "utf_8_sig": "utf_8",
}
_LARGER: t.Final = {"shift_jis": "cp932", "gb2312": "gb18030", "gbk": "gb18030", "euc_kr": "cp949"}
"""Texts with these labels often have characters of a larger set that contains the named one (Encoding Standard)."""
_LITTLE: t.Final = {"utf_16": "utf_16_le", "utf_32": "utf_32_le"}
"""Without a byte order mark they are little-endian, as in browsers, unless the first bytes have more zeros."""
_GZIP, _MEMBER = 31, b"\x1f\x8b"
_WINDOWS: t.Final = {"gzip": (_GZIP,), "x-gzip": (_GZIP,), "deflate": (15, -15)}
"""`wbits` of zlib for each: `deflate` is a zlib stream (RFC 9110, section 8.4.1.2), but many send a raw one."""
_CHARSET: t.Final = re.compile(r"""(?i);\s*charset\s*=\s*["']?\s*([^\s;"']{1,60})""")


@dataclass(frozen=True)
class Legible:
    """A body as text, with notes on what the text does not show."""

    text: str
    notes: tuple[tuple[str, Mapping[str, t.Any]], ...] = ()
    """Keys of `NOTES`, each with the parameters of its sentence."""

    @property
    def note(self) -> str | None:
        """All notes in English; None if there are none."""
        return " ".join(NOTES[key] % values for key, values in self.notes) or None


_Notes = list[tuple[str, Mapping[str, t.Any]]]


def of_attempt(attempt: Attempt) -> Legible:
    """Return the body of a response that the log has stored."""
    headers = json.loads(attempt.response_headers) if attempt.response_headers else {}
    return legible(attempt.response_body or b"", headers, is_cut=attempt.response_truncated)


def legible(body: bytes, headers: Mapping[str, str], *, is_cut: bool = False) -> Legible:
    """Return a body as text.

    :param is_cut: its end is missing, perhaps in the middle of a character.
    """
    if not body:
        return Legible("")
    known = {name.lower(): value for name, value in headers.items()}
    notes: _Notes = []
    data, is_cut = _decompressed(body, known.get("content-encoding", ""), is_cut, notes)
    charset, data = _charset(data, known.get("content-type", ""), notes)
    text = codecs.getincrementaldecoder(charset)("replace").decode(data, final=not is_cut)
    # The text may contain U+FFFD itself: then strict decoding succeeds.
    if "\N{REPLACEMENT CHARACTER}" in text and not _is_valid(data, charset, is_cut):
        notes.append(("not_text", {"charset": charset.upper().replace("_", "-")}))
    return Legible(text, tuple(notes))


# ---- compression -----------------------------------------------------------------------------------------


def _decompressed(body: bytes, codings: str, is_cut: bool, notes: _Notes) -> tuple[bytes, bool]:
    """Return the decompressed bytes, and whether their end is missing."""
    names = [name for each in codings.lower().split(",") if (name := each.strip()) not in ("", "identity")]
    if len(names) > MOST_CODINGS:
        notes.append(("many_codings", {"most": MOST_CODINGS}))
        return body, is_cut
    for coding in reversed(names):  # the last was put on last (RFC 9110, section 8.4)
        windows = _WINDOWS.get(coding)
        if windows is None:
            notes.append(("unknown_coding", {"coding": coding[:40]}))
            return body, is_cut
        inside, end = max((_inflated(body, window) for window in windows), key=lambda found: len(found[0]))
        if not inside and end == "broken":
            notes.append(("not_packed", {"coding": coding}))
            return body, is_cut
        if end == "bomb":
            notes.append(("bomb", {"most": MOST_TEXT}))
        elif end == "trailing" or (end == "broken" and not is_cut):  # a cut body is marked as such anyway
            notes.append((end, {"coding": coding}))
        body, is_cut = inside, end not in ("", "trailing")
    return body, is_cut


def _inflated(body: bytes, window: int) -> tuple[bytes, str]:
    """Return at most `MOST_TEXT` decompressed bytes, and how they ended: a key of `NOTES`, empty if complete."""
    out, inflate = bytearray(), zlib.decompressobj(window)
    for at in range(0, len(body), STEP):
        piece = body[at : at + STEP]
        end = at + len(piece)
        try:
            while piece:
                if inflate.eof:  # gzip may have several members (RFC 1952, section 2.2)
                    if window != _GZIP or not body.startswith(_MEMBER, end - len(piece)):
                        return bytes(out), "trailing"
                    inflate = zlib.decompressobj(window)
                out += inflate.decompress(piece, MOST_TEXT + 1 - len(out))
                if len(out) > MOST_TEXT:
                    return bytes(out[:MOST_TEXT]), "bomb"
                piece = inflate.unused_data or inflate.unconsumed_tail
        except zlib.error:
            return bytes(out), "broken"
    return bytes(out), "" if inflate.eof else "broken"


# ---- charset ---------------------------------------------------------------------------------------------


def _charset(data: bytes, content_type: str, notes: _Notes) -> tuple[str, bytes]:
    """Return the charset, and the bytes without a byte order mark, which takes precedence over the header."""
    for mark, charset in _BOMS:
        if data.startswith(mark):
            return charset, data[len(mark) :]
    match = _CHARSET.search(content_type)
    if match is None:
        return "utf_8", data
    name = re.sub(r"[^a-z0-9]+", "_", match[1].lower())
    # Never codecs.lookup: it imports and remembers whatever name it is asked for.
    name = _ALIASES.get(name, name)
    if name not in _CHARSETS:
        notes.append(("unknown_charset", {"charset": match[1]}))
        return "utf_8", data
    if name in _LITTLE:
        width = 2 if name == "utf_16" else 4
        is_big = data[0::width].count(0) > data[width - 1 :: width].count(0)
        return f"{name}_be" if is_big else _LITTLE[name], data
    return _LARGER.get(name, name), data


def _is_valid(data: bytes, charset: str, is_cut: bool) -> bool:
    try:
        codecs.getincrementaldecoder(charset)("strict").decode(data, final=not is_cut)
    except UnicodeError:
        return False
    return True
