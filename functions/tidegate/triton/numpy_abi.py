"""Patches the wheel's Python stub for NumPy 2.

The stubs in `nvidia-pytriton` 0.7.0 were built for NumPy 1. NumPy 2 moved `PyArray_Descr.elsize`, the size of an element, from
byte 32 to byte 40 (https://numpy.org/doc/2.0/numpy_2_0_migration_guide.html#c-api-changes). A stub reads it in five places:
once for the strides of an input, and four times for the size of an output. With NumPy 2 it reads 0: each element of an input
is its first one, and Triton answers "output tensor shape does not match size of output". NumPy 1 has no release for Python
3.13, so a copy of the stub is patched. NVIDIA's images have a matching pair and are never patched.
"""

from __future__ import annotations

import hashlib

from tidegate.errors import StackError

ELSIZE_IN_NUMPY_1 = 32
ELSIZE_IN_NUMPY_2 = 40

WHEEL = "nvidia-pytriton==0.7.0"
"""The wheel that `STUBS` describes."""

STUBS = {
    # Python 3.11
    "a302adf6396501ac139da06f965aea1bf61929c99bf799f6b8797e071cd268f4": (0xA4BFC, 0xA4E41, 0xA55B4, 0xA5819, 0xAB24B),
    # Python 3.12
    "41a7758c6f44520b846e90a5bf8b063f99aee01698c3e32113ce352fe8369921": (0xA6C74, 0xA6E90, 0xA7664, 0xA78A9, 0xACA2B),
    # Python 3.13
    "7b701b4b4bc01ca7af0350eaffa4f2aed92f02b465b3494a265059e4d3ca6cf8": (0xA6C74, 0xA6E90, 0xA7664, 0xA78A9, 0xACA2B),
}
"""Positions, by SHA-256 of a stub, of the offset of `elsize` in the instructions that read it.

Each is the last byte of `movslq 0x20(%rax),%rax` or `mov 0x20(%rax),%eax`. Both read 4 of the 8 bytes in NumPy 2, which
suffices on a little-endian machine. Found with `objdump -d` in the constructors of `PbTensor` and of `pybind11::array`; no
other read of that width and offset takes a `PyArray_Descr`.
"""


def for_numpy_2(stub: bytes) -> bytes | None:
    """Return a stub's executable for NumPy 2, or None if the stub is unknown.

    Raises:
        StackError: `STUBS` has a wrong position.
    """
    places = STUBS.get(hashlib.sha256(stub).hexdigest())
    if places is None:
        return None
    adapted = bytearray(stub)
    for place in places:
        if adapted[place] != ELSIZE_IN_NUMPY_1:
            raise StackError(f"cannot adapt Triton's Python stub to NumPy 2: byte {place:#x} is {adapted[place]:#x}")
        adapted[place] = ELSIZE_IN_NUMPY_2
    return bytes(adapted)
