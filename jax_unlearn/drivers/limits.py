"""The two limits of a step on one device: its operations, and the bytes it moves.

No step is faster than its operations at the device's peak rate, nor than its bytes at
the memory's; the larger time is the bound, and the first over the measured time is the
share of the peak that is reached.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from jax.extend.core import jaxprs_in_params

__all__ = ["PEAKS", "Cost", "Peak", "cost_of"]


class Peak(NamedTuple):
    """What one device does at most, and who says so."""

    flops: float  # a second on dense matrices of bfloat16; float16 where noted
    bandwidth: float  # bytes a second from and to its own memory
    source: str


_HOPPER = "NVIDIA H100 data sheet; half of what it says of sparse matrices"
_H200 = "NVIDIA H200 data sheet; half of what it says of sparse matrices"
_A100 = "NVIDIA A100 data sheet"
_TPU = "Cloud TPU documentation, system architecture, a chip"
PEAKS = {
    "NVIDIA H200": Peak(989e12, 4.8e12, _H200),
    "NVIDIA H100 80GB HBM3": Peak(989e12, 3.35e12, _HOPPER),
    "NVIDIA H100 PCIe": Peak(756e12, 2.0e12, _HOPPER),
    "NVIDIA A100-SXM4-40GB": Peak(312e12, 1.555e12, _A100),
    "NVIDIA A100-SXM4-80GB": Peak(312e12, 2.039e12, _A100),
    "NVIDIA L4": Peak(121e12, 0.3e12, "NVIDIA L4 data sheet; half of sparse"),
    "Tesla T4": Peak(65e12, 0.32e12, "NVIDIA T4 data sheet, float16"),
    "TPU v4": Peak(275e12, 1.228e12, _TPU),
    "TPU v5 lite": Peak(197e12, 0.819e12, _TPU),
    "TPU v5": Peak(459e12, 2.765e12, _TPU),
    "TPU v6 lite": Peak(918e12, 1.64e12, _TPU),
}
"""By `jax.Device.device_kind`: "NVIDIA H200 NVL" is another card; none is of CPUs."""


class Cost(NamedTuple):
    """What one call of a program costs at least.

    Operations are those of convolutions and matrix products; bytes are moved by these,
    by reductions and as arguments and results: all else counts as fused into them.
    """

    flops: float
    bytes: float

    def seconds(self, peak: Peak) -> dict[str, float]:
        """Return the least seconds by each of the limits."""
        operations, moved = self.flops / peak.flops, self.bytes / peak.bandwidth
        return {"operations": operations, "bytes": moved}


def cost_of(function: Callable[..., Any], *arguments: Any) -> Cost:
    """Return the cost of a function, traced and not compiled: no device is needed.

    A multiplication and an addition count as two operations, with padding's zeros too,
    but not with those between the samples of a strided convolution's gradient. A scan
    counts as often as it repeats, another loop once, of branches the dearest. XLA's own
    account leaves out what a library does, as convolutions on GPUs.
    """
    closed = jax.make_jaxpr(function)(*arguments)
    flops, moved = _counted(closed.jaxpr)
    ends = [*closed.in_avals, *closed.out_avals]
    return Cost(float(flops), float(moved + sum(map(_size, ends))))


def _size(aval: Any) -> int:
    dtype = getattr(aval, "dtype", None)
    return 0 if dtype is None else math.prod(aval.shape) * dtype.itemsize


def _counted(jaxpr: Any) -> tuple[int, int]:
    """Return operations and bytes, without those of arguments and results."""
    flops = moved = 0
    for equation in jaxpr.eqns:
        name, told = equation.primitive.name, equation.params
        given = [variable.aval for variable in equation.invars]
        made = [variable.aval for variable in equation.outvars]
        inner = [_counted(one) for one in jaxprs_in_params(told)]
        times = told["length"] if name == "scan" else 1
        join = max if name == "cond" else sum
        flops += times * join([one[0] for one in inner] or [0])
        moved += times * join([one[1] for one in inner] or [0])
        if name == "conv_general_dilated":
            numbers = told["dimension_numbers"]
            sides = zip(numbers.lhs_spec[2:], numbers.rhs_spec[2:], strict=True)
            # of a kernel larger than the image, as in second derivatives, the rest
            # meets padding alone
            window = [min(given[0].shape[i], given[1].shape[k]) for i, k in sides]
            depth = given[1].shape[numbers.rhs_spec[1]] * math.prod(window)
            between = math.prod(told["lhs_dilation"])
            flops += 2 * math.prod(made[0].shape) * depth // max(between, 1)
        elif name == "dot_general":
            (contracted, _), _ = told["dimension_numbers"]
            depth = math.prod(given[0].shape[axis] for axis in contracted)
            flops += 2 * math.prod(made[0].shape) * depth
        elif not name.startswith("reduce_"):
            continue
        moved += sum(map(_size, [*given, *made]))
    return flops, moved
