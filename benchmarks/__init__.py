"""Benchmarks: `make bench`. Every figure is a ratio against a peer in the same run (docs/benchmarks.md)."""
