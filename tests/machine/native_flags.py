"""Flags that the manual leaves undefined (SDM vol. 2, "Flags Affected" on each instruction's page)."""

from native_layout import AF, ARITHMETIC, CF, OF, PF, SF, ZF

ROTATES = frozenset({"rol", "ror", "rcl", "rcr"})
SHIFTS = frozenset({"shl", "shr", "sar"})
DOUBLE_SHIFTS = frozenset({"shld", "shrd"})
COUNTED = ROTATES | SHIFTS | DOUBLE_SHIFTS

UNDEFINED = {
    **dict.fromkeys(("and", "or", "xor", "test"), AF),
    **dict.fromkeys(("bt", "bts", "btr", "btc"), OF | SF | AF | PF),
    **dict.fromkeys(("bsf", "bsr"), CF | OF | SF | AF | PF),
    **dict.fromkeys(("lzcnt", "tzcnt"), OF | SF | PF | AF),
    **dict.fromkeys(("mul", "imul"), SF | ZF | AF | PF),
    **dict.fromkeys(("div", "idiv"), ARITHMETIC),
    **dict.fromkeys(("aaa", "aas"), OF | SF | ZF | PF),
    **dict.fromkeys(("aam", "aad"), OF | AF | CF),
    **dict.fromkeys(("daa", "das"), OF),
}
"""By mnemonic. Shifts depend on their count: see `undefined_flags`."""


def undefined_flags(name: str, size: int, count: int = 1) -> int:
    """Flags without a defined value after `name` on operands of `size` bytes; `count`: of a shift, before masking."""
    if name not in COUNTED:
        return UNDEFINED.get(name, 0)
    count &= 63 if size == 8 else 31
    if not count:
        return 0
    undefined = 0 if count == 1 else OF
    if name not in ROTATES:
        undefined |= AF
    if name in ("shl", "shr") and count >= size * 8:
        undefined |= CF
    if name in DOUBLE_SHIFTS and count > size * 8:
        undefined = ARITHMETIC
    return undefined
