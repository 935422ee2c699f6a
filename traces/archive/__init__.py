"""Tapes kept together, each part stored once, found again by what they show (docs/archive.md)."""

from traces.archive.archive import Added, Archive, Collected, Problem, Verified
from traces.archive.catalogue import Row, Search
from traces.archive.location import create_archive, home, is_archive, open_archive
from traces.archive.manifest import Diagnosis, Divergence
from traces.archive.retention import Rules, to_remove

__all__ = [
    "Added",
    "Archive",
    "Collected",
    "Diagnosis",
    "Divergence",
    "Problem",
    "Row",
    "Rules",
    "Search",
    "Verified",
    "create_archive",
    "home",
    "is_archive",
    "open_archive",
    "to_remove",
]
