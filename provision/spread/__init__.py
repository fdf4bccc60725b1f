"""A fleet worked through by more machines than this one, by an engine that others have made (`--engine`)."""
