"""Equal pages are found, and only those."""

import random

import pytest

from traces import _codec
from traces.writer import _unique

PAGE = 4096


def test_same_pages_are_found() -> None:
    r = random.Random(3)
    for count in (0, 1, 2, 7, 300):
        # Few different pages, all but the first two differing from another by one bit only.
        base = bytearray(r.randbytes(PAGE))
        kinds = [bytes(PAGE), bytes(base)]
        for _ in range(20):
            base[r.randrange(PAGE)] ^= 1 << r.randrange(8)
            kinds.append(bytes(base))
        pages = [r.choice(kinds) for _ in range(count)]
        found = memoryview(_codec.same_pages(b"".join(pages))).cast("I").tolist()
        assert found == [pages.index(page) for page in pages]
        unique, numbers = _unique(b"".join(pages))
        different = list(dict.fromkeys(pages))
        assert bytes(unique) == b"".join(different)
        assert numbers.tolist() == [different.index(page) for page in pages]


def test_torn_pages_are_refused() -> None:
    with pytest.raises(ValueError, match="whole pages"):
        _codec.same_pages(bytes(PAGE + 1))
