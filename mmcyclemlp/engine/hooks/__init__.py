"""Hooks for training that lasts, by mm's own extension point."""
