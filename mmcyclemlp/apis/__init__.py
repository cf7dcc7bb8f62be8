"""Predict, draw and count with the models of a config."""
