"""What plugs into mm's runner; the only room that imports mm."""

from .registration import register

__all__ = ['register']
