"""`mlhost run`, done: looking at the machine, running docker beside a guard, and carrying a tree to a host and its results back."""
