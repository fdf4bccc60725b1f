"""Working on many hosts: in which order they begin, when it stops, and what is remembered for the next time."""
