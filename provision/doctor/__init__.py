"""The doctor: known failures as data, and the pure function that finds which of them explain what a host shows."""
