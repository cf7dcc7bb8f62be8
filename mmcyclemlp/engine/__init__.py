"""Registration, config, loops, hooks and checkpoints for mm's runner."""
