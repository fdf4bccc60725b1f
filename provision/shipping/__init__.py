"""Images on the move: built, saved, loaded, pushed and copied, by a real Docker and real processes."""
