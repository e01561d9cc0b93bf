"""Measurements behind the figures in README and docs; each is a command that anyone can rerun."""
