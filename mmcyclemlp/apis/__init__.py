"""What commands do with a model: predict, draw, count, export, examine."""
