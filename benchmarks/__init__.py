"""Benchmarks: `make bench` runs them all, `make bench ONLY=fuse` one.

Each module `bench_NAME` has `KEYS`, what each of its figures means, and `run()`, which measures them. Both sides of a
ratio are measured in one run.
"""
