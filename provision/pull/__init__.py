"""Machines that set themselves up: the user-data, and the other texts, by which a machine does at its first boot what a controller would do."""
