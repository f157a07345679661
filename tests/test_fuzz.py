"""Thousands of damaged files: each is read, or refused by an error of ours that names it.

Damage is drawn from a fixed seed (SAN_FUZZ_SEED=7 draws other damage; SAN_FUZZ_TIMES=10 as much
more). What is read has to be usable: a record makes tables, a split gives images. No file may make
a reader wait, take memory without bound, or touch what is not its own.
"""

import copy
import io
import json
import logging
import os
import random
import resource
import signal
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pictures
import pytest
import torch
from conftest import tiny_vit
from PIL import Image

import san
from san import record
from san.backbones import build_backbone
from san.compose import named_by_value
from san.data.images import decode_image
from san.data.pack import write_split
from san.data.prepare.sources import find_source
from san.data.split import read_split
from san.errors import DataError, SanError
from san.report.explain import explain_cell
from san.report.render import write_table
from san.report.table import make_table
from san.runtime import lease, lease_holder
from san.tasks import load_suite
from san.training.checkpoint import Checkpoint, Position

pytestmark = pytest.mark.fuzz
SEED = int(os.environ.get("SAN_FUZZ_SEED", "0"))
TIMES = int(os.environ.get("SAN_FUZZ_TIMES", "1"))
TOO_LONG_S = 120  # what takes longer hangs
MOST_MEMORY = 2**31  # bytes of addresses that a reader may take beyond what the tests have
OLD_RECORDS = Path(__file__).parent / "golden" / "a10070e" / "records"
DEMO = load_suite("demo")
CUB = load_suite("fgvc").task("cub")
DTD = load_suite("vtab").task("dtd")
VIT = "vit_tiny_patch16_224.augreg_in21k"
SMALL = {"img_size": 32, "patch_size": 16, "embed_dim": 32, "depth": 1, "num_heads": 2}
ODD_VALUES: list[Any] = [
    None, True, -1, 0, 1, 2**31, 10**19, 10**400, 1e308, -0.0, float("nan"), float("inf"),
    "", "x", "\ud800", "\x1b[2J", "../..", "/etc/passwd", "=1+1", "two\nlines", "é" * 5000,
    [], {}, [[]], {"a": 1}, [None], [1, "a"],
]  # fmt: skip
NUMBERS = [b"\x00", b"\xff", b"\x7f\xff\xff\xff", b"\xff" * 8, b"\x00" * 8]


class Damage:
    """Draws damage to bytes and to JSON."""

    def __init__(self, *seed: object) -> None:
        self.random = random.Random(f"{SEED} {seed}")

    def of_bytes(self, good: bytes) -> bytes:
        """Cut, repeat, flip or replace a few bytes."""
        data = bytearray(good)
        for _ in range(self.random.choice([1, 1, 2, 5])):
            at = self.random.randrange(len(data) + 1)
            action = self.random.randrange(5)
            if action == 0:
                del data[at:]
            elif action == 1:
                data[at:at] = data[at : at + self.random.randrange(200)]
            elif action == 2:
                data[at : at + 1] = bytes([self.random.randrange(256)])
            elif action == 3:
                number = self.random.choice(NUMBERS)
                data[at : at + len(number)] = number
            else:
                del data[at : at + self.random.randrange(20)]
        return bytes(data)

    def of_header(self, good: bytes) -> bytes:
        """Damage the beginning, where formats say how large everything is."""
        length = min(len(good), self.random.choice([16, 128, 2000]))
        return self.of_bytes(good[:length]) + good[length:]

    def of_json(self, good: bytes) -> bytes:
        """Change a few values, anywhere in it; or its bytes."""
        if self.random.random() < 0.2:
            return self.of_bytes(good)
        value = json.loads(good)
        for _ in range(self.random.choice([1, 1, 2, 3])):
            value = self._changed(value)
        return json.dumps(value).encode()

    def _changed(self, value: Any) -> Any:
        """Change a value, or one inside of it."""
        inside = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
        if not inside or self.random.random() < 0.15:
            return self._odd(value)
        changed = copy.copy(value)
        key = self.random.choice(list(inside))
        if isinstance(value, dict) and self.random.random() < 0.1:
            del changed[key]
        elif isinstance(value, dict) and self.random.random() < 0.1:
            changed[self.random.choice(["zz", "a.b", "lr", ""])] = self._odd(None)
        else:
            changed[key] = self._changed(value[key])
        return changed

    def _odd(self, value: Any) -> Any:
        if type(value) is int and self.random.random() < 0.5:
            return value + self.random.choice([-1, 1, 100, -(10**6)])
        if isinstance(value, str) and self.random.random() < 0.3:
            return value[: self.random.randrange(len(value) + 1)] + self.random.choice(["", "x", ","])
        return self.random.choice(ODD_VALUES)
