"""Headless Chromium over its debugging pipe: what a page logs, asks for and looks like."""

import fcntl
import json
import os
import shutil
import subprocess
import time
from base64 import b64decode
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from select import select
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
SWITCHES = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--hide-scrollbars"),
    *("--disable-background-networking", "--disable-dev-shm-usage", "--remote-debugging-pipe"),
)
TIMEOUT_S = 90


def find() -> str | None:
    """Where a Chromium is; None if there is none."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


@dataclass
class Opened:
    """A page after it was loaded: complaints of its console, and the addresses it asked for."""

    complaints: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    load_ms: float = 0.0


class Tab:
    """One page of a browser."""

    def __init__(self, send_fd: int, receive_fd: int) -> None:
        self.send_fd, self.receive_fd = send_fd, receive_fd
        self.number, self.buffer = 0, b""
        self.session: str | None = None
        self.opened = Opened()
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self.session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> Any:
        """The result of a command; events before it are noted."""
        self.number += 1
        message: dict[str, Any] = {"id": self.number, "method": method, "params": parameters}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.send_fd, json.dumps(message).encode() + b"\0")
        return self._answer(self.number)

    def open(self, path: Path) -> Opened:
        """Load a page and wait until it has drawn itself."""
        self.opened = Opened()
        started = time.monotonic()
        self.call("Page.navigate", url=path.resolve().as_uri())
        while self.evaluate("document.readyState + document.body?.dataset.ready") != "completeyes":
            assert time.monotonic() - started < TIMEOUT_S, self.opened.complaints
            time.sleep(0.02)
        # Two frames: what observers of sizes draw is then on the screen.
        frames = "new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))"
        self.opened.load_ms = self.evaluate(f"{frames}.then(() => performance.now())")
        return self.opened

    def evaluate(self, expression: str) -> Any:
        """The value of an expression in the page."""
        done = self.call(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in done, done["exceptionDetails"]
        return done["result"].get("value")

    def resize(self, width: int, height: int, *, phone: bool = False) -> None:
        """Show the page in a window of this size."""
        scale = 2 if phone else 1
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=scale,
            mobile=phone,
        )

    def prefer(self, scheme: str) -> None:
        """Have the system ask for light or dark."""
        feature = {"name": "prefers-color-scheme", "value": scheme}
        self.call("Emulation.setEmulatedMedia", features=[feature])

    def press(self, key: str) -> None:
        """A key, down and up."""
        for kind in ("keyDown", "keyUp"):
            code = {"Tab": 9, "Enter": 13, "Escape": 27, "ArrowLeft": 37}[key]
            text = {"text": "\r"} if key == "Enter" and kind == "keyDown" else {}
            self.call(
                "Input.dispatchKeyEvent", type=kind, key=key, windowsVirtualKeyCode=code, **text
            )

    def picture(self, *, whole: bool = True) -> bytes:
        """A PNG of the page."""
        done = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        return b64decode(done["data"])

    def _answer(self, number: int) -> Any:
        while True:
            message = self._next()
            if message.get("id") == number:
                assert "error" not in message, message["error"]
                return message["result"]
            self._note(message.get("method", ""), message.get("params", {}))

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self.buffer:
            assert select([self.receive_fd], [], [], TIMEOUT_S)[0], "the browser does not answer"
            self.buffer += os.read(self.receive_fd, 1 << 20)
        text, _, self.buffer = self.buffer.partition(b"\0")
        return json.loads(text)

    def _note(self, event: str, seen: dict[str, Any]) -> None:
        if event == "Network.requestWillBeSent":
            self.opened.requests.append(seen["request"]["url"])
        elif event == "Runtime.exceptionThrown":
            details = seen["exceptionDetails"]
            what = details.get("exception", {}).get("description", details["text"])
            self.opened.complaints.append(what)
        elif event == "Runtime.consoleAPICalled" and seen["type"] in ("error", "warning", "assert"):
            self.opened.complaints.append(str(seen["args"]))
        elif event == "Log.entryAdded" and seen["entry"]["level"] in ("error", "warning"):
            self.opened.complaints.append(seen["entry"]["text"])


@contextmanager
def browser(program: str, profile: Path) -> Iterator[Tab]:
    """A tab of a browser of its own, which ends with the block."""
    their_read, send = os.pipe()
    receive, their_write = os.pipe()
    # Away from 3 and 4, which are where Chromium looks.
    high = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 20) for fd in (their_read, their_write)]
    for fd in (their_read, their_write):
        os.close(fd)

    def place() -> None:
        os.dup2(high[0], 3)
        os.dup2(high[1], 4)

    command = [program, *SWITCHES, f"--user-data-dir={profile}"]
    quiet: Any = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen(command, preexec_fn=place, close_fds=False, **quiet)
    for fd in high:
        os.close(fd)
    try:
        yield Tab(send, receive)
    finally:
        process.terminate()
        process.wait(TIMEOUT_S)
        os.close(send)
        os.close(receive)
