"""Fuzzing of everything that reads what others wrote. See `harnesses` for what is fuzzed, `python -m tests.fuzz --help` for a long run."""
