"""Servers that nobody here wrote, each in an environment of its own, and whole runs against them."""
