"""The specs that mlhost ships for GPUs, as they are."""

from provision.specs.test_gpu import *  # noqa: F403
from provision.specs.test_gpu import pytestmark  # noqa: F401 - a machine without a GPU skips them
