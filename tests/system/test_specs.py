"""The specs that mlhost ships, as they are."""

from provision.specs.test_docker import *  # noqa: F403
