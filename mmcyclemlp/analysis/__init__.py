"""Draw what the network reads and computes."""
