"""What is known to differ from the real CPU, until it is mended: these rows are left out of the random vectors.

Each has a vector of its own that must differ (test_native.py): what is mended has to be taken out of here.
"""

from collections.abc import Callable
from dataclasses import dataclass

from native_rows import Row


@dataclass(frozen=True)
class Known:
    """A difference. `line`: a vector in the words of fuzz_isa.py."""

    reason: str
    line: str
    matches: Callable[[Row], bool]


KNOWN = (
    Known(
        "LAHF writes the low byte of register 4 instead of AH",
        "world=64 name=lahf code=9f entry=0x100100 flags=0x2 rax=0xff00",
        lambda row: row.name == "lahf",
    ),
    Known(
        "a 32-bit CMOVcc that does not move has to clear the upper half in 64-bit code",
        "world=64 name=cmovb code=0f42c1 entry=0x100100 flags=0x2 rax=0xffffffffffffffff",
        lambda row: row.name.startswith("cmov"),
    ),
    Known(
        "loading SS with a null selector faults, but changes SS",
        "world=64 name=mov code=8ed0 entry=0x100100 flags=0x2",
        lambda row: row.name == "lss" or (row.map == 0 and (row.opcode, row.extension) in ((0x8E, 2), (0x17, -1))),
    ),
    Known(
        "MOVNTI has no 16-bit form: in 16-bit code it stores 32 bits",
        "world=16 name=movnti code=0fc307 entry=0x100100 flags=0x2 rax=0x12345678 rbx=0x8f90",
        lambda row: row.name == "movnti",
    ),
    Known(
        "an address that is not canonical comes before one that is not aligned",
        "world=64 name=mov code=8b06 entry=0x100100 flags=0x40002 rsi=0x800000000001",
        lambda row: False,  # no random vector has both
    ),
    Known(
        "POP of a segment register is not checked for alignment",
        "world=64 name=pop code=0fa9 entry=0x100100 flags=0x40002 rsp=0x120804",
        lambda row: False,  # no random vector has AC set
    ),
)


def is_known(row: Row) -> bool:
    return any(known.matches(row) for known in KNOWN)
