"""Hooks for mm's runner."""
