"""A real browser: headless Chromium, driven by the standard library through chromedriver (W3C WebDriver).

    python -m benchmarks.browser

says which browser there is, or in one line why there is none, and exits with 1 then. Debian has both as `chromium` and
`chromium-driver`.
"""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import subprocess
import sys
from types import TracebackType
from typing import Any
from urllib.request import ProxyHandler, Request, build_opener

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
_ELEMENT = "element-6066-11e4-a52e-4f735466cecf"
_direct = build_opener(ProxyHandler({}))  # the driver is on this machine, whatever proxy there is


class Browser:
    """One window; a context manager that ends the browser."""

    def __init__(self) -> None:
        browser = next((found for name in NAMES if (found := shutil.which(name))), None)
        driver = shutil.which("chromedriver")
        if browser is None or driver is None:
            missing = "chromium" if browser is None else "chromedriver"
            debian = "apt-get install chromium chromium-driver"
            sys.exit(f"error: there is no {missing} here; install a Chromium and its driver (Debian: {debian})")
        self._driver = subprocess.Popen(
            [driver, "--port=0"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        assert self._driver.stdout is not None
        port = next(
            (m[1] for line in self._driver.stdout if (m := re.search(r"successfully on port (\d+)", line))), None
        )
        if port is None:
            raise RuntimeError("chromedriver ended before it listened")
        self._address = f"http://127.0.0.1:{port}"
        arguments = ["--headless=new", "--disable-gpu", "--hide-scrollbars", "--force-color-profile=srgb"]
        arguments.append("--disable-dev-shm-usage")  # containers have little of it
        arguments += ["--no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
        asked = {
            "browserName": "chrome", "goog:loggingPrefs": {"browser": "ALL", "performance": "ALL"},
            "goog:chromeOptions": {"binary": browser, "args": arguments},
        }  # fmt: skip
        try:
            made = self._call("POST", "/session", {"capabilities": {"alwaysMatch": asked}})
        except RuntimeError:
            self._driver.terminate()
            raise
        self._session = f"/session/{made['sessionId']}"
        self.name = f"{made['capabilities']['browserName']} {made['capabilities']['browserVersion']}"

    def __enter__(self) -> Browser:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        try:
            self._call("DELETE", self._session)
        finally:
            self._driver.terminate()
            self._driver.wait(10)

    def open(self, address: str) -> None:
        """Load a page; what was logged before is forgotten."""
        self.log("browser")
        self.log("performance")
        self._call("POST", f"{self._session}/url", {"url": address})

    def look(self, *, width: int, height: int, mobile: bool, scheme: str) -> None:
        """The window's size, and the colours that the system prefers."""
        size = {"width": width, "height": height, "deviceScaleFactor": 2 if mobile else 1, "mobile": mobile}
        self.devtools("Emulation.setDeviceMetricsOverride", size)
        self.devtools("Emulation.setTouchEmulationEnabled", {"enabled": mobile})
        features = [
            {"name": "prefers-color-scheme", "value": scheme},
            {"name": "prefers-reduced-motion", "value": "reduce"},
        ]
        self.devtools("Emulation.setEmulatedMedia", {"features": features})

    def run(self, script: str, *arguments: Any) -> Any:
        """The value of a function's body."""
        return self._call("POST", f"{self._session}/execute/sync", {"script": script, "args": list(arguments)})

    def click(self, selector: str) -> None:
        """Click an element, which must be in sight and covered by nothing."""
        element = self._find(selector)
        self.run("document.querySelector(arguments[0]).scrollIntoView({block: 'center'})", selector)
        self._call("POST", f"{self._session}/element/{element}/click", {})

    def type(self, selector: str, text: str) -> None:
        """Type into a field."""
        element = self._find(selector)
        self._call("POST", f"{self._session}/element/{element}/value", {"text": text})

    def picture(self, *, whole: bool) -> bytes:
        """A PNG of the window, or of the whole page."""
        asked: dict[str, Any] = {"format": "png", "captureBeyondViewport": whole}
        if whole:
            size = self.devtools("Page.getLayoutMetrics", {})["cssContentSize"]
            asked["clip"] = {**size, "x": 0, "y": 0, "scale": 1}
        return base64.b64decode(self.devtools("Page.captureScreenshot", asked)["data"])

    def complaints(self) -> list[str]:
        """The messages of the page's console."""
        return [entry["message"] for entry in self.log("browser")]

    def requests(self) -> list[str]:
        """Every address that was requested."""
        events = [json.loads(entry["message"])["message"] for entry in self.log("performance")]
        return [e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"]

    def log(self, kind: str) -> list[dict[str, Any]]:
        """What was logged since the last call."""
        return self._call("POST", f"{self._session}/se/log", {"type": kind})

    def devtools(self, command: str, parameters: dict[str, Any]) -> Any:
        """A command of the Chrome DevTools Protocol."""
        return self._call("POST", f"{self._session}/goog/cdp/execute", {"cmd": command, "params": parameters})

    def _find(self, selector: str) -> str:
        found = self._call("POST", f"{self._session}/element", {"using": "css selector", "value": selector})
        return found[_ELEMENT]

    def _call(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = Request(self._address + path, data=data, method=method, headers={"Content-Type": "application/json"})
        try:
            with _direct.open(request, timeout=60) as answer:
                return json.loads(answer.read())["value"]
        except OSError as error:
            said = getattr(error, "read", lambda: b"")().decode(errors="replace")
            raise RuntimeError(f"{method} {path}: {error} {said[:400]}") from error


def main() -> None:
    """Start a browser and end it."""
    try:
        with Browser() as browser:
            print(browser.name)
    except (RuntimeError, OSError) as error:
        sys.exit(f"error: the browser does not start: {' '.join(str(error).split())[:200]}")


if __name__ == "__main__":
    main()
