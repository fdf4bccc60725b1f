"""A real headless Chromium, driven by Debian's own driver. Nothing is fetched for it, and it is told to use no network."""

from __future__ import annotations

import base64
import contextlib
import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest


@dataclass
class Browser:
    """One window. `driver` is Selenium's."""

    driver: Any

    def open(self, page: Path, *, scheme: str = "light", width: int = 1400, height: int = 1000, fragment: str = "") -> None:
        """Load a page anew; what the log had before is forgotten."""
        self.size(width, height)
        self.media(scheme)
        self.driver.get("about:blank")
        for name in ("browser", "performance"):
            self.driver.get_log(name)
        self.driver.get(page.as_uri() + fragment)

    def size(self, width: int, height: int) -> None:
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)

    def media(self, scheme: str, kind: str = "") -> None:
        """Light or dark; `kind` print shows on the screen what is printed."""
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": kind, "features": [{"name": "prefers-color-scheme", "value": scheme}]})

    def scripts(self, allowed: bool) -> None:
        """Whether pages loaded from now on may run scripts."""
        self.driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": not allowed})

    def js(self, text: str, *arguments: Any) -> Any:
        """What a script returns."""
        return self.driver.execute_script(text, *arguments)

    def console(self) -> list[str]:
        """What the console has said since the page was opened: errors, and everything that the page's policy has stopped."""
        return [entry["message"] for entry in self.driver.get_log("browser")]

    def requests(self) -> list[str]:
        """Every address asked for since the page was opened."""
        told = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        return [event["params"]["request"]["url"] for event in told if event["method"] == "Network.requestWillBeSent"]

    def pdf(self) -> bytes:
        """The page as it is printed."""
        return base64.b64decode(self.driver.print_page())


def _started(start: Callable[[], Any]) -> Any:
    """The driver; it gives up on a Chromium that takes long to start, which on a loaded machine it may."""
    from selenium.common.exceptions import WebDriverException

    for _ in range(3):
        try:
            return start()
        except WebDriverException as problem:
            last = problem
    raise last


@contextlib.contextmanager
def browser() -> Iterator[Browser]:
    """A browser; skips where Chromium, its driver or Selenium is not there."""
    webdriver = pytest.importorskip("selenium.webdriver")
    from selenium.webdriver.chrome.service import Service

    program, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not program or not driver:
        pytest.skip("needs chromium and chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = program
    arguments = ["--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", "--disable-background-networking", "--no-first-run"]
    for argument in (*arguments, "--disable-component-update", "--disable-extensions", "--host-resolver-rules=MAP * ~NOTFOUND"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    started = _started(lambda: webdriver.Chrome(options=options, service=Service(driver)))
    try:
        # A loaded machine is no finding.
        started.set_page_load_timeout(500)
        started.set_script_timeout(500)
        yield Browser(started)
    finally:
        started.quit()
