"""Inputs that are nearly right: seeded mutations of good ones, in bytes and in words."""

from __future__ import annotations

import random
import re
import struct

__all__ = ["mutate", "mutate_values"]

_NUMBERS = (0, 1, 2, 3, 7, 8, 127, 255, 256, 511, 512, 4095, 4096, 65535, 1 << 20, (1 << 31) - 1)
_NUMBERS += (1 << 31, (1 << 32) - 1, 1 << 32, 1 << 48, 1 << 60, (1 << 63) - 1, (1 << 64) - 1)
_WORDS = (
    "../x", "..", ".", "/", "a/../b", "-x", "\0", "é", "\udcff", "", " ", "x" * 200, "{", "}", "[",
    "]", '"', "\\", "=", "0x10", "1e9", "-1", "99999999999999999999", "true", "null", "#", ",",
    "NaN", "snapshot5", "٣", "\n", "%s", "$(id)", "__class__",
)  # fmt: skip
_VALUE = re.compile(rb'-?\b[0-9]+\b|"[^"\n]*"')
_TOKEN = re.compile(rb"[A-Za-z0-9_./+-]+|\s+|.", re.DOTALL)


def mutate(choose: random.Random, data: bytes) -> bytes:
    """One to four changes."""
    found = bytearray(data)
    for _ in range(choose.choice([1, 1, 1, 2, 4])):
        found = _once(choose, found)
    return bytes(found)


def _once(choose: random.Random, data: bytearray) -> bytearray:
    size = len(data)
    at = choose.randrange(size + 1)
    match choose.randrange(9):
        case 0 if size:
            data[at % size] ^= 1 << choose.randrange(8)
        case 1 if size:
            data[at % size] = choose.randrange(256)
        case 2:
            width = choose.choice("BHIQ")
            number = choose.choice(_NUMBERS) + choose.choice([0, 0, 1, -1])
            packed = struct.pack(
                choose.choice("<>") + width, number % (1 << 8 * struct.calcsize(width))
            )
            data[at : at + len(packed)] = packed
        case 3:
            del data[at : at + choose.choice([1, 2, 8, 100])]
        case 4:
            end = min(size, at + choose.choice([1, 8, 64, 512]))
            data[at:at] = data[at:end] * choose.choice([1, 2, 50])
        case 5:
            del data[at:]
        case 6:
            data[at:at] = choose.randbytes(choose.choice([1, 4, 40]))
        case _:
            tokens = _TOKEN.findall(bytes(data[:20000]))
            rest = data[20000:]
            if tokens:
                where = choose.randrange(len(tokens))
                word = choose.choice([*_WORDS, str(choose.choice(_NUMBERS))])
                tokens[where] = word.encode(errors="surrogateescape")
                data = bytearray(b"".join(tokens)) + rest
    return data


def mutate_values(choose: random.Random, text: bytes) -> bytes:
    """One to three changes of a text of `key = value` lines that mostly leave its grammar whole:
    another value, one that stands elsewhere in the text, a line taken away or doubled."""
    for _ in range(choose.choice([1, 1, 2, 3])):
        lines = text.split(b"\n")
        values = list(_VALUE.finditer(text))
        kind = choose.randrange(10)
        if kind < 8 and values:
            spot = choose.choice(values)
            old = spot[0]
            if kind < 4:
                alike = [v[0] for v in values if v[0][:1].isdigit() == old[:1].isdigit()]
                new = choose.choice(alike)
            elif old[:1] == b'"':
                new = f'"{choose.choice(_WORDS)}"'.encode(errors="surrogateescape")
            else:
                new = b"%d" % (choose.choice(_NUMBERS) * choose.choice([1, 1, 1, -1]))
            text = text[: spot.start()] + new + text[spot.end() :]
        elif kind == 8:
            del lines[choose.randrange(len(lines))]
            text = b"\n".join(lines)
        else:
            at = choose.randrange(len(lines))
            lines[at:at] = [choose.choice(lines)]
            text = b"\n".join(lines)
    return text
