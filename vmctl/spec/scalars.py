"""The kinds of value that a spec holds: sizes, durations, labels, addresses, ports.

Each takes the text as it was written (`nodes.Plain` without quotes, `str` with) and returns what
the program works with. Sources of the rules: RFC 1123 for labels, QEMU for `G` being binary.
"""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, PlainValidator, WithJsonSchema
from pydantic_core import PydanticCustomError

from vmctl import sizes
from vmctl.spec import nodes, pattern, problems

LABEL = r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$"
IMAGE_NAME = r"^[a-z0-9]+([._-][a-z0-9]+)*$"
SIZE = r"^[1-9][0-9]{0,8}([KMGT]|[KMGT]iB)$"
DURATION = r"^[0-9]{1,6}(\.[0-9]{1,3})?(ms|s|m|h)$"
MAC = r"^[0-9A-Fa-f]{2}(:[0-9A-Fa-f]{2}){5}$"
IPV4 = r"^((25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])(\.(?!$)|$)){4}$"
INTERFACE = r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,14}$"
MOST_CPUS = 255
"""More need an interrupt-remapping IOMMU in the guest, which vmctl does not set up."""
_OCTET = "(25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
ADDRESS_AND_PREFIX = rf"^({_OCTET}\.){{3}}{_OCTET}(/([1-9]|[12][0-9]|30))?$"
URL = r"^https?://([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?/[!-~]*$"
SHA256 = r"^[0-9A-Fa-f]{64}$"
SAFE_TEXT = r"^[^\x00-\x1f\x7f-\x9f]*$"

_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_INTEGER = re.compile(r"-?(0|[1-9][0-9]{0,17})")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_LEAST_MEMORY = 16 << 20
_MOST_MEMORY = 16 << 40
_LEAST_DISK = 1 << 20
_MOST_DISK = 64 << 40
_LONGEST_SECONDS = 24 * 3600.0
LONGEST_PATH = 1024
_LONGEST_DESCRIPTION = 500

WORDS = {"yes": "true", "on": "true", "y": "true", "no": "false", "off": "false", "n": "false"}
"""What YAML 1.1 took for booleans, with what to write instead."""


def refusal(code: str, text: str, hint: str = "") -> PydanticCustomError:
    """Return the error that a validator raises; the field's name is put before `text`."""
    # The text goes in as a value: braces in what the user wrote must not be taken for fields.
    return PydanticCustomError(code, "{text}", {"text": text, "hint": hint})


def shown(value: object) -> str:
    """Return how a value is named in a message."""
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, (list, tuple)):
        return "a list"
    return problems.quoted(str(value))


def text_of(value: object) -> str:
    """Return a value that is text. Raises PydanticCustomError."""
    if not isinstance(value, str):
        raise refusal("type", f"must be text; got {shown(value)}")
    return str(value)


def whole_number(value: object) -> int:
    """Return a number that was written without quotes. Raises PydanticCustomError."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if not isinstance(value, str) or not _INTEGER.fullmatch(value):
        raise refusal("type", f"must be a whole number; got {shown(value)}")
    if not isinstance(value, nodes.Plain):
        raise refusal("type", "must be a number without quotes", f"write {value}")
    return int(value)


def _truth(value: object) -> bool:
    if isinstance(value, bool):
        return value
    if isinstance(value, nodes.Plain) and value in ("true", "True", "TRUE"):
        return True
    if isinstance(value, nodes.Plain) and value in ("false", "False", "FALSE"):
        return False
    word = WORDS.get(str(value).lower(), "")
    hint = f"write {word}" if word else ""
    raise refusal("type", f"must be true or false; got {shown(value)}", hint)


def label(value: object) -> str:
    """Return a valid name. Raises PydanticCustomError."""
    text = text_of(value)
    if re.fullmatch(LABEL, text):
        if text.isdigit():
            raise refusal("name", f"must not be a number; got {shown(text)}", _with_letter(text))
        if _UUID.fullmatch(text):
            raise refusal("name", f"must not look like a UUID; got {shown(text)}")
        return text
    if len(text) > 63:
        raise refusal("name", f"must have at most 63 characters; this has {len(text)}")
    other = made_label(text)
    raise refusal(
        "name",
        f"must consist of a-z, 0-9 and '-', and neither begin nor end with '-'; got {shown(text)}",
        f"write '{other}'" if other and text.isascii() else "",
    )


def _with_letter(number: str) -> str:
    return f"write 'vm-{number}'" if len(number) <= 60 else ""


def made_label(text: str) -> str:
    """Return the valid name nearest to a text, empty where there is none."""
    made = re.sub(r"[^a-z0-9]+", "-", text[:200].lower()).strip("-")[:63].strip("-")
    if made.isdigit() or _UUID.fullmatch(made):
        made = f"vm-{made}"[:63].strip("-")
    return made


def _image_name(value: object) -> str:
    text = text_of(value)
    if len(text) <= 63 and re.fullmatch(IMAGE_NAME, text):
        return text
    if "://" in text:
        wanted = "must be the name of an image, and this is an address"
        raise refusal("name", wanted, "write image: {url: …, sha256: …, format: qcow2}")
    hint = "write image: {path: …, format: qcow2} for a file" if "/" in text else ""
    wanted = f"must be the name of an image, such as debian-12; got {shown(text)}"
    raise refusal("name", wanted, hint)


def size(value: object) -> int:
    """Return the bytes of a size such as 4GiB. Raises PydanticCustomError."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value  # from Python: a file holds text only
    text = text_of(value)
    if re.fullmatch(SIZE, text):
        number = re.match("[0-9]+", text)
        assert number is not None
        return int(number.group()) * sizes.UNITS[text[number.end()]]
    wanted = f"must be a size such as 512MiB or 4GiB; got {shown(text)}"
    raise refusal("size", wanted, _size_hint(text))


def _size_hint(text: str) -> str:
    decimal = re.fullmatch(r"([1-9][0-9]{0,8})\s*([KMGTkmgt])(i?[Bb])?", text)
    if decimal:
        unit = decimal[2].upper()
        return f"write '{decimal[1]}{unit}iB' (sizes are binary)"
    if re.fullmatch("[1-9][0-9]{0,8}", text):
        return f"add the unit: '{text}MiB' or '{text}GiB'"
    if re.fullmatch(r"[0-9]{1,6}\.[0-9]+\s*[KMGTkmgt](i?[Bb])?", text):
        return "write a whole number of a smaller unit"
    return ""


def _memory(value: object) -> int:
    return _within(value, size(value), _LEAST_MEMORY, _MOST_MEMORY)


def _disk_size(value: object) -> int:
    return _within(value, size(value), _LEAST_DISK, _MOST_DISK)


def _within(value: object, found: int, least: int, most: int) -> int:
    if least <= found <= most:
        return found
    limits = f"at least {sizes.text(least)} and at most {sizes.text(most)}"
    raise refusal("range", f"must be {limits}; got {shown(value)}")


def duration(value: object) -> float:
    """Return the seconds of a duration such as 90s; raises ValueError."""
    if isinstance(value, float):
        return value  # from Python: a file holds text only
    text = text_of(value)
    match = re.fullmatch(r"([0-9]{1,6}(?:\.[0-9]{1,3})?)(ms|s|m|h)", text)
    if match is None:
        hint = f"add the unit: '{text}s'" if re.fullmatch("[0-9]{1,6}", text) else ""
        raise refusal(
            "duration", f"must be a duration such as 90s, 5m or 1h; got {shown(text)}", hint
        )
    seconds = float(match[1]) * _SECONDS[match[2]]
    if not 0 < seconds <= _LONGEST_SECONDS:
        raise refusal("range", f"must be more than 0s and at most 24h; got {shown(text)}")
    return seconds


def _mac(value: object) -> str:
    text = text_of(value).lower()
    if not re.fullmatch(MAC, text):
        hint = ""
        digits = re.sub("[^0-9a-f]", "", text)
        if len(digits) == 12 and len(text) <= 17:
            hint = "write '" + ":".join(re.findall("..", digits)) + "'"
        raise refusal(
            "mac", f"must be a MAC address such as 52:54:00:12:34:56; got {shown(value)}", hint
        )
    if int(text[:2], 16) & 1 or text == "00:00:00:00:00:00":
        raise refusal("mac", f"must be the MAC address of one card (unicast); got {shown(value)}")
    return text


def _ipv4(value: object) -> str:
    text = text_of(value)
    if not re.fullmatch(IPV4, text):
        raise refusal("address", f"must be an IPv4 address such as 127.0.0.1; got {shown(text)}")
    return text


def _interface(value: object) -> str:
    text = text_of(value)
    if not re.fullmatch(INTERFACE, text):
        raise refusal("name", f"must be the name of a network interface; got {shown(text)}")
    return text


def file_path(value: object) -> str:
    """Return the path of a file, as it was written. Raises PydanticCustomError."""
    text = text_of(value)
    if not text or "\n" in text or "\t" in text:
        raise refusal("path", f"must be the path of a file; got {shown(text)}")
    if len(text) > LONGEST_PATH:
        raise refusal("path", f"must have at most {LONGEST_PATH} characters")
    if text.startswith("~"):
        raise refusal("path", f"must be a path without '~'; got {shown(text)}")
    return text


def _url(value: object) -> str:
    text = text_of(value)
    if len(text) > LONGEST_PATH:
        raise refusal("url", f"must have at most {LONGEST_PATH} characters")
    if not re.fullmatch(URL, text):
        hint = ""
        if "@" in text.partition("//")[2].partition("/")[0]:
            hint = "an address with a password in it ends up in logs; leave that out"
        elif "://" not in text and "." in text.partition("/")[0]:
            hint = f"write 'https://{text}'" if text.isascii() and text.isprintable() else ""
        wanted = f"must be an address that begins with https:// or http://; got {shown(text)}"
        raise refusal("url", wanted, hint)
    return text


def _sha256(value: object) -> str:
    text = text_of(value)
    if not re.fullmatch(SHA256, text):
        found = f"got {len(text)} characters" if len(text) > 20 else f"got {shown(text)}"
        raise refusal("sha256", f"must be 64 hexadecimal digits; {found}")
    return text.lower()


def description(value: object) -> str:
    """Return one line for people. Raises PydanticCustomError."""
    text = text_of(value)
    if not re.fullmatch(SAFE_TEXT, text):
        raise refusal("text", "must be one line without control characters")
    if len(text) > _LONGEST_DESCRIPTION:
        raise refusal("text", f"must have at most {_LONGEST_DESCRIPTION} characters")
    return text


def _regex(value: object) -> str:
    text = text_of(value)
    objection = pattern.objection(text)
    if objection:
        raise refusal("pattern", f"{objection}; got {shown(text)}")
    return text


def _address_and_prefix(value: object) -> str:
    text = text_of(value)
    if not re.fullmatch(ADDRESS_AND_PREFIX, text):
        wanted = "must be an IPv4 address such as 192.168.1.10, on a bridge 192.168.1.10/24"
        raise refusal("address", f"{wanted}; got {shown(text)}")
    return text


def string(title: str, **keywords: Any) -> WithJsonSchema:
    """Return the schema of a kind of text; `title` is what the reference calls it."""
    return WithJsonSchema({"type": "string", "title": title, **keywords})


Text = Annotated[str, PlainValidator(text_of), string("Text")]
Description = Annotated[
    str,
    PlainValidator(description),
    string("Description", pattern=SAFE_TEXT, maxLength=_LONGEST_DESCRIPTION),
]
Cpus = Annotated[int, Field(ge=1, le=MOST_CPUS), BeforeValidator(whole_number)]
Count = Annotated[int, Field(ge=1, le=999), BeforeValidator(whole_number)]
Truth = Annotated[bool, PlainValidator(_truth), WithJsonSchema({"type": "boolean"})]
Label = Annotated[
    str,
    PlainValidator(label),
    string("Label", pattern=LABEL, **{"not": {"pattern": f"^([0-9]+|{_UUID.pattern})$"}}),
]
ImageName = Annotated[
    str, PlainValidator(_image_name), string("ImageName", pattern=IMAGE_NAME, maxLength=63)
]
Memory = Annotated[int, PlainValidator(_memory), string("Size", pattern=SIZE)]
DiskSize = Annotated[int, PlainValidator(_disk_size), string("Size", pattern=SIZE)]
Duration = Annotated[float, PlainValidator(duration), string("Duration", pattern=DURATION)]
Port = Annotated[int, Field(ge=1, le=65535), BeforeValidator(whole_number)]
MacAddress = Annotated[str, PlainValidator(_mac), string("MacAddress", pattern=MAC)]
Address = Annotated[str, PlainValidator(_ipv4), string("Address", pattern=IPV4)]
Interface = Annotated[
    str, PlainValidator(_interface), string("Interface", pattern=INTERFACE, maxLength=15)
]
FilePath = Annotated[
    str,
    PlainValidator(file_path),
    string("FilePath", minLength=1, maxLength=LONGEST_PATH, pattern=r"^[^~\n\t][^\n\t]*$"),
]
Url = Annotated[str, PlainValidator(_url), string("Url", pattern=URL, maxLength=LONGEST_PATH)]
Sha256 = Annotated[str, PlainValidator(_sha256), string("Sha256", pattern=SHA256)]
Pattern = Annotated[
    str, PlainValidator(_regex), string("Pattern", minLength=1, maxLength=pattern.LONGEST)
]
AddressAndPrefix = Annotated[
    str, PlainValidator(_address_and_prefix), string("Address", pattern=ADDRESS_AND_PREFIX)
]
