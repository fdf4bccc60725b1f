"""How fast mlhost is, against others and against its own bars. Each module runs by itself: `python -m benchmarks.noop_ssh`."""
