"""mlhost: turns a fresh Linux machine into a proved GPU container host."""

__version__ = "0.1.0"
