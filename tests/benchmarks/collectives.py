"""What a compiled step sends between devices, and what that would cost on many chips.

`counted` reads the program that XLA compiled. The seconds after it are a model, not a
measurement: each collective goes round one ring, at one bandwidth and one latency, and
nothing is sent while the chip computes.
"""

import math
import re
from collections.abc import Iterable
from typing import NamedTuple

from jax_unlearn.errors import InputError

KINDS = (
    "all-reduce",
    "all-gather",
    "reduce-scatter",
    "all-to-all",
    "collective-permute",
)
_BYTES = {"pred": 1, "bf16": 2}  # other types say their bits: f32, u8, f8e4m3fn


class Collective(NamedTuple):
    """One communication of a program.

    Attributes:
      kind: of `KINDS`.
      shapes: (type, dimensions) of the arrays it returns on one device; several where
        XLA has combined as many.
      group: devices that talk to one another, 0 if the program does not say.
    """

    kind: str
    shapes: tuple[tuple[str, tuple[int, ...]], ...]
    group: int

    @property
    def bytes(self) -> int:
        """Bytes of the whole arrays: those returned, or those given if scattered."""
        total = sum(_width(dtype) * math.prod(dims) for dtype, dims in self.shapes)
        return total * (max(self.group, 1) if self.kind == "reduce-scatter" else 1)


def counted(program: str) -> list[Collective]:
    """Return the collectives of a compiled program, in its order.

    Args:
      program: `jax.jit(step).lower(state, batch, key).compile().as_text()`. The body of
        a loop counts once, so give the program of one step.

    Returns:
      A `Collective` for each operation, asynchronous ones once.

    Source: our choice.

    >>> one = "%a = (f32[9,4]{1,0}, f32[]) all-reduce(%b), replica_groups=[1,8]<=[8]"
    >>> counted(one)
    [Collective(kind='all-reduce', shapes=(('f32', (9, 4)), ('f32', ())), group=8)]
    >>> counted(one)[0].bytes
    148
    """
    lines = program.splitlines()
    named = {line.split(" = ")[0].strip().lstrip("%"): line for line in lines}
    found = []
    for line in lines:
        match = re.search(rf" = (.*?) ({'|'.join(KINDS)})(-done)?\(%?([\w.-]*)", line)
        if match is None:
            continue
        result, kind, done, operand = match.groups()
        shapes = tuple(
            (dtype, tuple(int(size) for size in sizes.split(",") if size))
            for dtype, sizes in re.findall(r"\b(pred|[a-z]+\d\w*)\[([\d,]*)\]", result)
        )
        group = _group(named.get(operand, line) if done else line)
        found.append(Collective(kind, shapes, group))
    return found


class Chip(NamedTuple):
    """What the model assumes of a chip; example values are no measurement.

    Attributes:
      flops: operations a second that a step reaches.
      bandwidth: bytes a second that a chip sends along the ring.
      latency: seconds from a message to the next.
    """

    flops: float
    bandwidth: float
    latency: float = 0.0


def ring_seconds(kind: str, size: float, chips: int, *, chip: Chip) -> float:
    """Return the time of one collective round a ring of chips.

    An all-reduce of S bytes on n chips: 2(n − 1)·(S/(n·bandwidth) + latency). A gather,
    a scatter or an all-to-all is half of it; a permutation is one message of S bytes.

    Args:
      kind: of `KINDS`.
      size: S, bytes of the whole array.
      chips: n, at least 1.
      chip: see `Chip`.

    Returns:
      Seconds; 0 on one chip.

    Raises:
      InputError: `chips` below 1; a rate that is not positive, a negative latency.

    Source: Patarasuk and Yuan, Bandwidth optimal all-reduce algorithms, 2009.

    >>> ring_seconds("all-reduce", 8e9, 4, chip=Chip(1e12, bandwidth=1e9))
    12.0
    """
    if chips < 1 or min(chip.flops, chip.bandwidth) <= 0 or chip.latency < 0:
        raise InputError(
            f"chips={chips}, {chip}: give 1 chip or more, positive rates and a latency "
            "of 0 or more"
        )
    if chips == 1:
        return 0.0
    if kind == "collective-permute":
        return size / chip.bandwidth + chip.latency
    turns = (2 if kind == "all-reduce" else 1) * (chips - 1)
    return turns * (size / (chips * chip.bandwidth) + chip.latency)


def efficiency(
    collectives: Iterable[Collective], flops: float, chips: int, *, chip: Chip
) -> float:
    """Return the share of a step's time in which the chips compute.

    Weak scaling: each chip keeps its number of samples, so its operations stay, and so
    do the bytes of the arrays that are reduced. n chips do n·efficiency times the work
    of one.

    Args:
      collectives: of a step, by `counted`.
      flops: operations of a step on one chip.
      chips: n, all in one ring.
      chip: see `Chip`.

    Returns:
      Between 0 and 1; 1 on one chip.

    Raises:
      InputError: as `ring_seconds`.

    Source: our choice.

    >>> sent = [Collective("all-reduce", (("f32", (500,)),), 8)]  # 2000 bytes
    >>> efficiency(sent, 3e3, 4, chip=Chip(flops=1e3, bandwidth=1e3))  # 3 s and 3 s
    0.5
    """
    sending = sum(ring_seconds(c.kind, c.bytes, chips, chip=chip) for c in collectives)
    computing = flops / chip.flops
    return computing / (computing + sending) if sending else 1.0


def _width(dtype: str) -> int:
    """Return the bytes of a number of this type, at least 1."""
    if dtype in _BYTES:
        return _BYTES[dtype]
    bits = re.search(r"\d+", dtype)
    return max(int(bits[0]) // 8, 1) if bits else 1


def _group(line: str) -> int:
    """Return the size of the groups, in any of the three forms XLA writes them."""
    iota = re.search(r"replica_groups=\[\d+,(\d+)\]", line)
    if iota:
        return int(iota[1])
    listed = re.search(r"replica_groups=\{\{([\d,]+)\}", line)
    if listed:
        return len(listed[1].split(","))
    mesh = re.search(r"replica_groups=mesh\[(.*?)\] \{(.*?)\}", line)
    if mesh:
        sizes = dict(re.findall(r"'([^']+)'=(\d+)", mesh[1]))
        return math.prod(int(sizes[name]) for name in re.findall(r"'([^']+)'", mesh[2]))
    return 0
