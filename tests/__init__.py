"""mlhost's own tests."""
