"""Executions of small programs under x86-TSO by its axioms: how many there are, not how they come about.

An execution is a choice of which write each read reads from (rf) and of an order of the writes to each location (co).
Sewell, Sarkar, Owens, Zappa Nardelli, Myreen, CACM 2010; in the form of Alglave, Maranget, Tautschnig, TOPLAS 2014: per
location coherent (acyclic po-loc, rf, co, fr), and acyclic ppo, mfence, rfe, co, fr, where ppo is program order without
write-to-read. This is what GenMC and Nidhugg count, and visit once each at best.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import permutations, product

Op = tuple[str, int] | tuple[str]
"""("load", location), ("store", location) or ("mfence",)."""


def executions(program: tuple[tuple[Op, ...], ...]) -> int:
    """How many consistent executions there are."""
    events = [
        (thread, index, op) for thread, ops in enumerate(program) for index, op in enumerate(ops) if op[0] != "mfence"
    ]
    fences = [
        (thread, index) for thread, ops in enumerate(program) for index, op in enumerate(ops) if op[0] == "mfence"
    ]
    reads = [n for n, (_, _, op) in enumerate(events) if op[0] == "load"]
    writes = [n for n, (_, _, op) in enumerate(events) if op[0] == "store"]
    places = sorted({op[1] for _, _, op in events})
    by_place = {place: [n for n in writes if events[n][2][1] == place] for place in places}
    po = [(a, b) for a, b in product(range(len(events)), repeat=2) if _before(events[a], events[b])]
    kept = [(a, b) for a, b in po if a in reads or b in writes or _fenced(events[a], events[b], fences)]
    local = [(a, b) for a, b in po if events[a][2][1] == events[b][2][1]]
    count = 0
    for orders in product(*(permutations(by_place[place]) for place in places)):
        rank = {n: i for order in orders for i, n in enumerate(order)}
        co = [(a, b) for order in orders for i, a in enumerate(order) for b in order[i + 1 :]]
        for sources in product(*([None, *by_place[events[n][2][1]]] for n in reads)):
            rf = [(w, r) for w, r in zip(sources, reads, strict=True) if w is not None]
            fr = [
                (r, w)
                for source, r in zip(sources, reads, strict=True)
                for w in by_place[events[r][2][1]]
                if source is None or rank[w] > rank[source]
            ]
            rfe = [(w, r) for w, r in rf if events[w][0] != events[r][0]]
            count += _acyclic([*local, *rf, *co, *fr]) and _acyclic([*kept, *rfe, *co, *fr])
    return count


def _before(a: tuple[int, int, Op], b: tuple[int, int, Op]) -> bool:
    return a[0] == b[0] and a[1] < b[1]


def _fenced(a: tuple[int, int, Op], b: tuple[int, int, Op], fences: list[tuple[int, int]]) -> bool:
    return any(thread == a[0] and a[1] < index < b[1] for thread, index in fences)


def _acyclic(edges: list[tuple[int, int]]) -> bool:
    following: dict[int, set[int]] = {}
    for a, b in edges:
        following.setdefault(a, set()).add(b)
    done: set[int] = set()

    def cyclic(node: int, above: frozenset[int]) -> bool:
        if node in above:
            return True
        if node in done:
            return False
        found = any(cyclic(other, above | {node}) for other in following.get(node, ()))
        done.add(node)
        return found

    return not any(cyclic(node, frozenset()) for node in list(following))


def programs(stores: int) -> Iterator[tuple[tuple[Op, ...], ...]]:
    """Two threads of two accesses to two locations each, `stores` of them stores, all there are."""
    accesses: list[Op] = [(kind, place) for kind in ("load", "store") for place in (0, 1)]
    for four in product(accesses, repeat=4):
        if sum(op[0] == "store" for op in four) == stores:
            yield four[:2], four[2:]
