"""Measure CycleMLP beside its alternatives. It needs torch alone."""
