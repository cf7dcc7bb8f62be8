"""A package, since another one of this name may be installed."""
