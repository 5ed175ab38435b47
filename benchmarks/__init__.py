"""Benchmarks of speed, and a comparison of the results of two commits."""
