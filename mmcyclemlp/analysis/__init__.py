"""Pictures of what the network does and of how its training went."""
