"""Benchmarks of gridcompute, and of other systems that do the same: `python -m benchmarks NAME`.

Every figure is checked before it counts: a benchmark that computes something else than it should fails.
"""
