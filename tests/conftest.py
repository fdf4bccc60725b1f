"""What all tests share: the lab's fixtures, and an environment that leads nowhere by accident."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import settings

# A busy machine is no finding: how long one example took says nothing here.
settings.register_profile("mlhost", deadline=None)
settings.load_profile("mlhost")

pytest_plugins = ["tests.lab.fixtures", "tests.fresh"]


@pytest.fixture(autouse=True)
def _own_caches(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads or writes the user's key cache or what the last runs left, and none is steered by the user's settings."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path_factory.getbasetemp() / "state"))
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path_factory.getbasetemp() / "docker"))
    for name in ("NO_COLOR", "MLHOST_HOME", "MLHOST_ROOT", "MLHOST_STATE", "DOCKER_HOST", "http_proxy", "https_proxy"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="session")
def checkout() -> Path:
    """The root of this checkout."""
    return Path(__file__).resolve().parent.parent
