"""A small driver for headless Chromium over its DevTools pipe: what a page logs, asks for and shows."""

import base64
import json
import os
import queue
import shutil
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

CHROMIUM = "/usr/bin/chromium"
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--remote-debugging-pipe",
]
QUIET = 0.15  # seconds without an event before a page counts as settled


def missing() -> str:
    """Why the browser tests cannot run, or an empty string."""
    return "" if shutil.which(CHROMIUM) else f"{CHROMIUM} is missing"


class Browser:
    """One Chromium process with a fresh profile; `open` gives a page."""

    def __init__(self, profile: Path) -> None:
        to_child, self._write = os.pipe()
        self._read, from_child = os.pipe()
        command = ["bash", "-c", 'exec "$@" 3<&$IN 4>&$OUT', "bash", CHROMIUM, *FLAGS, f"--user-data-dir={profile}"]
        environment = {**os.environ, "IN": str(to_child), "OUT": str(from_child)}
        self.process = subprocess.Popen(
            command,
            pass_fds=(to_child, from_child),
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(to_child)
        os.close(from_child)
        self._messages: queue.Queue[dict[str, Any]] = queue.Queue()
        self._number = 0
        self.events: list[dict[str, Any]] = []
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        buffer = b""
        while piece := os.read(self._read, 1 << 16):
            *whole, buffer = (buffer + piece).split(b"\0")
            for message in whole:
                self._messages.put(json.loads(message))

    def call(self, method: str, session: str | None = None, **parameters: Any) -> dict[str, Any]:
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if session:
            message["sessionId"] = session
        self._send(json.dumps(message).encode() + b"\0")
        while True:
            answer = self._messages.get(timeout=60)
            if answer.get("id") == self._number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                return answer["result"]
            self.events.append(answer)

    def _send(self, content: bytes) -> None:
        while content:
            content = content[os.write(self._write, content) :]

    def settle(self) -> None:
        """Wait until no event has come for a moment."""
        while True:
            try:
                self.events.append(self._messages.get(timeout=QUIET))
            except queue.Empty:
                return

    def open(self, path: Path, *, width: int = 1280, height: int = 900, dark: bool = False) -> "Page":
        return Page(self, path, width, height, dark)

    def close(self) -> None:
        try:
            self.call("Browser.close")
        except (RuntimeError, OSError, queue.Empty):
            self.process.kill()
        self.process.wait(timeout=20)


class Page:
    """One tab with its log."""

    def __init__(self, browser: Browser, path: Path, width: int, height: int, dark: bool) -> None:
        self.browser, self.url = browser, path.as_uri()
        self.target = browser.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = browser.call("Target.attachToTarget", targetId=self.target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        self.call("Page.navigate", url=self.url)
        deadline = time.monotonic() + 60
        while self.evaluate("document.readyState") != "complete" and time.monotonic() < deadline:
            time.sleep(0.02)
        browser.settle()

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        return self.browser.call(method, self.session, **parameters)

    def evaluate(self, script: str) -> Any:
        answer = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(json.dumps(answer["exceptionDetails"])[:2000])
        return answer["result"].get("value")

    def press(self, key: str) -> None:
        text = key if len(key) == 1 else ("\r" if key == "Enter" else "")
        more = {"text": text} if text else {}
        self.call("Input.dispatchKeyEvent", type="keyDown", key=key, **more)
        self.call("Input.dispatchKeyEvent", type="keyUp", key=key)
        self.browser.settle()

    def _mine(self, method: str) -> list[dict[str, Any]]:
        self.browser.settle()
        return [
            e["params"] for e in self.browser.events if e.get("sessionId") == self.session and e["method"] == method
        ]

    def complaints(self) -> list[str]:
        """Everything that went to the console, was thrown, blocked or opened a dialog."""
        found = [json.dumps(e["entry"]) for e in self._mine("Log.entryAdded")]
        found += [json.dumps(e["args"]) for e in self._mine("Runtime.consoleAPICalled")]
        found += [json.dumps(e["exceptionDetails"]) for e in self._mine("Runtime.exceptionThrown")]
        return found + [json.dumps(e) for e in self._mine("Page.javascriptDialogOpening")]

    def requests(self) -> list[str]:
        """Every address asked for besides the page itself."""
        urls = [e["request"]["url"] for e in self._mine("Network.requestWillBeSent")]
        return [url for url in urls if url.split("#")[0] != self.url]

    def screenshot(self, path: Path) -> None:
        size = self.call("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}
        shot = self.call("Page.captureScreenshot", clip=clip, captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(shot["data"]))

    def close(self) -> None:
        self.browser.call("Target.closeTarget", targetId=self.target)
