"""A headless Chromium that is told what to do, by its debugging protocol on a pipe."""

import base64
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest


class Page:
    """The page of a running browser."""

    def __init__(self, commands: int, answers: int) -> None:
        self._commands, self._answers, self._number = commands, os.fdopen(answers, "rb"), 0
        self._session = None
        target = self._call("Target.createTarget", url="about:blank")["targetId"]
        attached = self._call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]

    def open(self, url: str) -> None:
        self._call("Page.navigate", url=url)

    def evaluate(self, script: str) -> Any:
        """Return what a script says, a plain value."""
        result = self._call("Runtime.evaluate", expression=script, returnByValue=True)
        return result["result"].get("value")

    def wait_for(self, script: str, seconds: float = 240) -> Any:
        """Return what a script says once that is true."""
        deadline = time.monotonic() + seconds
        while not (found := self.evaluate(script)):
            if time.monotonic() > deadline:
                text = self.evaluate("document.body.innerText")
                pytest.fail(f"Not true within {seconds} s: {script}\n{text}")
            time.sleep(0.5)
        return found

    def press(self, key: str, code: int) -> None:
        for kind in ("keyDown", "keyUp"):
            self._call(
                "Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code
            )

    def photograph(self, picture: Path) -> None:
        """Write what is seen as a PNG."""
        content = self._call("Page.captureScreenshot", format="png")["data"]
        picture.write_bytes(base64.b64decode(content))

    def _call(self, method: str, **given: Any) -> dict[str, Any]:
        self._number += 1
        message = {"id": self._number, "method": method, "params": given}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._commands, json.dumps(message).encode() + b"\0")
        while True:
            answer = json.loads(self._read())
            if answer.get("id") == self._number:
                assert "error" not in answer, answer
                return answer["result"]

    def _read(self) -> bytes:
        content = bytearray()
        while byte := self._answers.read1(1 << 20):
            content += byte
            if content.endswith(b"\0"):
                return bytes(content[:-1]).rsplit(b"\0", 1)[-1]
        pytest.fail("Chromium has ended.")


@contextmanager
def run_chromium(folder: Path, width: int = 1400, height: int = 850) -> Iterator[Page]:
    """Start a browser whose profile lies in a folder; skip where none is installed."""
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    if program is None:
        pytest.skip("no Chromium is installed (Debian: apt install chromium)")
    # It reads commands from its file 3 and answers on 4.
    commands, answers = os.pipe(), os.pipe()

    def place() -> None:
        os.dup2(commands[0], 3)
        os.dup2(answers[1], 4)

    arguments = [
        program, "--headless=new", "--no-sandbox", "--no-first-run", "--remote-debugging-pipe",
        "--disable-background-networking", "--disable-component-update", "--disable-sync",
        "--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--ignore-gpu-blocklist",
        f"--user-data-dir={folder / 'profile'}", f"--window-size={width},{height}",
    ]  # fmt: skip
    process = subprocess.Popen(
        arguments, preexec_fn=place, close_fds=False, stderr=subprocess.DEVNULL
    )
    os.close(commands[0])
    os.close(answers[1])
    try:
        yield Page(commands[1], answers[0])
    finally:
        process.terminate()
        process.wait(timeout=30)
        os.close(commands[1])
