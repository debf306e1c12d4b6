"""The kinds of value that limit a machine: weights, percents, lists of processors, rates.

Sources of the ranges: cpu.weight and io.bfq.weight of the kernel (cgroup-v2.rst, bfq-iosched.rst),
libvirt's schema (`weight` in domaincommon.rng begins at 100).
"""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import BeforeValidator, Field, PlainValidator, WithJsonSchema

from vmctl import sizes
from vmctl.spec.scalars import MOST_CPUS, SIZE, refusal, shown, size, string, text_of, whole_number

PERCENT = r"^[1-9][0-9]{0,4}%$"
CPU_LIST = r"^[0-9]{1,4}(-[0-9]{1,4})?(,[0-9]{1,4}(-[0-9]{1,4})?)*$"
_MOST_PERCENT = 100 * MOST_CPUS
_LONGEST_LIST = 500
_LEAST_RATE = 1 << 10
"""Libvirt counts the rate of a card in whole KiB."""
_MOST_RATE = 1 << 40


def _percent(value: object) -> int:
    if isinstance(value, int) and not isinstance(value, bool):
        return value  # from Python: a file holds text only
    text = text_of(value)
    if not re.fullmatch(PERCENT, text):
        wanted = f"must be percent of one processor, such as 50% or 150%; got {shown(text)}"
        raise refusal("percent", wanted, _percent_hint(text))
    percent = int(text[:-1])
    if percent > _MOST_PERCENT:
        raise refusal("range", f"must be at most {_MOST_PERCENT}%; got {shown(text)}")
    return percent


def _percent_hint(text: str) -> str:
    number = re.fullmatch(r"([1-9][0-9]{0,4})\s*%?", text)
    if number:
        return f"write '{number[1]}%'"
    fraction = re.fullmatch(r"([0-9]{1,3})\.([0-9]{1,2})", text)
    if fraction:
        percent = 100 * int(fraction[1]) + int(fraction[2].ljust(2, "0"))
        return f"write '{percent}%' for {text} processors" if percent else ""
    if re.fullmatch(r"[0-9]{1,5}\.[0-9]+\s*%", text):
        return "write whole percent"
    return ""


def _cpu_list(value: object) -> str:
    text = text_of(value)
    if len(text) > _LONGEST_LIST:
        raise refusal("cpuset", f"must have at most {_LONGEST_LIST} characters")
    if not re.fullmatch(CPU_LIST, text):
        near = re.sub(r"\s+", "", text)
        wanted = f"must be a list of the host's processors, such as 0-3 or 0,2; got {shown(text)}"
        hint = f"write '{near}'" if re.fullmatch(CPU_LIST, near) else ""
        raise refusal("cpuset", wanted, hint)
    for part in text.split(","):
        first, dash, last = part.partition("-")
        if dash and int(first) > int(last):
            wanted = f"has a range that ends before it begins: '{part}'"
            raise refusal("cpuset", wanted, f"write '{last}-{first}'")
    return text


def _rate(value: object) -> int:
    rate = size(value)
    if not _LEAST_RATE <= rate <= _MOST_RATE:
        between = f"at least {sizes.text(_LEAST_RATE)} and at most {sizes.text(_MOST_RATE)}"
        raise refusal("range", f"must be {between} each second; got {shown(value)}")
    return rate


CpuWeight = Annotated[int, Field(ge=1, le=10_000), BeforeValidator(whole_number)]
IoWeight = Annotated[int, Field(ge=100, le=1000), BeforeValidator(whole_number)]
Iops = Annotated[int, Field(ge=1, le=1_000_000_000), BeforeValidator(whole_number)]
Percent = Annotated[int, PlainValidator(_percent), string("Percent", pattern=PERCENT)]
CpuList = Annotated[
    str,
    PlainValidator(_cpu_list),
    # One processor alone looks like a number to an editor.
    WithJsonSchema(
        {
            "type": ["string", "integer"],
            "title": "CpuList",
            "pattern": CPU_LIST,
            "maxLength": _LONGEST_LIST,
            "minimum": 0,
            "maximum": 9999,
        }
    ),
]
Rate = Annotated[int, PlainValidator(_rate), string("Rate", pattern=SIZE)]
