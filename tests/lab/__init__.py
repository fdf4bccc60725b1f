"""Real test hosts and real services for mlhost's own tests; README.md says what is real and what is a double."""
