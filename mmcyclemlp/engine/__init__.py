"""What plugs into mm's runner; the only room that imports mm."""
