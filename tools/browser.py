"""Drives a headless Chromium: opens pages, runs scripts, presses keys, takes pictures. For tests and figures.

Chromium speaks its DevTools protocol over a pair of pipes: JSON messages that end with a zero byte. No library and no
port are needed.
"""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage", "--hide-scrollbars",
    "--remote-debugging-pipe",
)  # fmt: skip


def find_chromium() -> str | None:
    """The path of a Chromium, or None."""
    names = ("chromium", "chromium-browser", "google-chrome")
    return next((path for path in map(shutil.which, names) if path), None)


class Page:
    """A page of a browser.

    Attributes:
        problems: What the pages opened so far have complained about: errors of scripts, files that did not load.
    """

    def __init__(self, read: int, write: int, timeout: float = 60) -> None:
        self._read, self._write, self._timeout = read, write, timeout
        self._buffer, self._count = b"", 0
        self._session: str | None = None
        self._events: list[dict[str, Any]] = []
        self.problems: list[str] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Calls a method of the protocol."""
        self._count += 1
        message: dict[str, Any] = {"id": self._count, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._receive()
            if answer.get("id") == self._count:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']['message']}")
                return answer["result"]
            self._note(answer)

    def _receive(self) -> dict[str, Any]:
        end = time.monotonic() + self._timeout
        while b"\0" not in self._buffer:
            if not select.select([self._read], [], [], max(0, end - time.monotonic()))[0]:
                raise TimeoutError("the browser does not answer")
            part = os.read(self._read, 1 << 20)
            if not part:
                raise RuntimeError("the browser has ended")
            self._buffer += part
        message, self._buffer = self._buffer.split(b"\0", 1)
        return json.loads(message)

    def _note(self, event: dict[str, Any]) -> None:
        self._events.append(event)
        details = event.get("params", {})
        if event["method"] == "Runtime.exceptionThrown":
            thrown = details["exceptionDetails"]
            self.problems.append(thrown.get("exception", {}).get("description", thrown["text"]))
        elif event["method"] == "Log.entryAdded" and details["entry"]["level"] in ("error", "warning"):
            self.problems.append(f"{details['entry']['text']} {details['entry'].get('url', '')}")
        elif event["method"] == "Runtime.consoleAPICalled" and details["type"] in ("error", "warning"):
            self.problems.append(str(details["args"]))
        elif event["method"] == "Network.loadingFailed" and not details.get("canceled"):
            self.problems.append(f"{details['type']}: {details['errorText']}")

    def open(self, url: str) -> None:
        """Opens a page and waits until it and its images are loaded."""
        self._events.clear()
        self.call("Page.navigate", url=url)
        self.wait_for_load()

    def wait_for_load(self) -> None:
        """Waits for the load of a page that was asked for."""
        while not any(event["method"] == "Page.loadEventFired" for event in self._events):
            self._note(self._receive())
        self._events.clear()

    def run(self, expression: str) -> Any:
        """The value of a JavaScript expression; promises are awaited."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(answer["exceptionDetails"]["exception"]["description"])
        return answer["result"].get("value")

    def resize(self, width: int, height: int, *, scale: float = 1, phone: bool = False) -> None:
        """Sets the size of the window in CSS pixels."""
        size = {"width": width, "height": height, "deviceScaleFactor": scale, "mobile": phone}
        self.call("Emulation.setDeviceMetricsOverride", **size)
        self.call("Emulation.setTouchEmulationEnabled", enabled=phone)

    def prefer(self, **features: str) -> None:
        """Sets media features, such as `prefers_color_scheme="dark"`."""
        named = [{"name": name.replace("_", "-"), "value": value} for name, value in features.items()]
        self.call("Emulation.setEmulatedMedia", features=named)

    def press(self, key: str) -> None:
        """Presses a key, such as "ArrowRight" or "+"."""
        text = {"text": key} if len(key) == 1 else {}
        self.call("Input.dispatchKeyEvent", type="keyDown", key=key, **text)
        self.call("Input.dispatchKeyEvent", type="keyUp", key=key)

    def centre(self, selector: str) -> tuple[float, float]:
        """Scrolls to the first element of a selector and gives its centre."""
        x, y = self.run(
            f"(() => {{ const one = document.querySelector({json.dumps(selector)});"
            "one.scrollIntoView({block: 'center', behavior: 'instant'});"
            "const area = one.getBoundingClientRect();"
            "return [area.x + area.width / 2, area.y + area.height / 2]; })()"
        )
        return x, y

    def mouse(self, kind: str, x: float, y: float, **parameters: Any) -> None:
        """Sends an event of the mouse: "mousePressed", "mouseMoved", "mouseReleased", "mouseWheel"."""
        pressed = {} if kind == "mouseWheel" else {"button": "left", "buttons": 1, "clickCount": 1}
        self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, **{**pressed, **parameters})

    def click(self, selector: str) -> None:
        """Clicks the centre of an element."""
        self.drag(self.centre(selector))

    def drag(self, *places: tuple[float, float]) -> None:
        """Presses the mouse at the first place, moves it over the others, and lets it go."""
        self.mouse("mousePressed", *places[0])
        for place in places[1:]:
            self.mouse("mouseMoved", *place)
        self.mouse("mouseReleased", *places[-1], buttons=0)

    def picture(self, path: Path, *, whole: bool = False) -> None:
        """Writes a PNG of what is seen, or of the whole page."""
        found = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(found["data"]))


@contextmanager
def open_browser(profile: Path) -> Iterator[Page]:
    """Starts a browser with a page; it ends with the context.

    Args:
        profile: An empty folder for its files.

    Raises:
        FileNotFoundError: There is no Chromium.
    """
    chromium = find_chromium()
    if chromium is None:
        raise FileNotFoundError("there is no Chromium; install it: apt-get install chromium")
    from_browser, browser_writes = os.pipe()
    browser_reads, to_browser = os.pipe()

    # The browser reads from 3 and writes to 4; duplicates above these keep one from closing the other.
    script = f'exec 3<&{browser_reads} 4>&{browser_writes}; exec "$@"'
    command = ["bash", "-c", script, "bash", chromium, *FLAGS, f"--user-data-dir={profile}", "about:blank"]
    process = subprocess.Popen(
        command, pass_fds=(browser_reads, browser_writes), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    os.close(browser_reads)
    os.close(browser_writes)
    try:
        yield Page(from_browser, to_browser)
    finally:
        os.close(to_browser)  # at which Chromium ends
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        os.close(from_browser)
