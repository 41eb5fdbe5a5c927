"""A headless Chromium that tests and `benchmarks/screenshots.py` look at pages with."""

from __future__ import annotations

import base64
import io
import json
import os
import shutil
import subprocess
import sys
from contextlib import contextmanager

import numpy as np
from PIL import Image

BROWSER = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-sync",
    "--disable-background-networking",
    "--disable-component-update",
    "--hide-scrollbars",
    "--remote-debugging-pipe",
]
# The browser reads commands from file 3 and writes to file 4; pipes come with other numbers.
REWIRE = (
    "import fcntl, os, sys; r, w = (fcntl.fcntl(int(f), fcntl.F_DUPFD, 10) for f in sys.argv[1:3]);"
    "os.dup2(r, 3); os.dup2(w, 4); os.execvp(sys.argv[3], sys.argv[3:])"
)

# Runs in the page: the texts whose colours differ least from what lies behind them.
CONTRASTS = """(() => {
  const parse = text => (text.match(/[\\d.]+/g) || []).map(Number);
  const light = ([r, g, b]) => [r, g, b].map(v => v / 255)
    .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, k) => sum + v * [0.2126, 0.7152, 0.0722][k], 0);
  const behind = element => {
    for (let at = element; at; at = at.parentElement) {
      const colour = parse(getComputedStyle(at).backgroundColor);
      if (colour.length === 3 || colour[3] === 1) return colour;
    }
    return [255, 255, 255];
  };
  const found = {};
  for (const element of document.querySelectorAll("body *")) {
    const own = [...element.childNodes].some(n => n.nodeType === 3 && n.textContent.trim());
    if (!own || !element.checkVisibility() || element.closest("svg, script, style")) continue;
    const style = getComputedStyle(element);
    const [a, b] = [light(parse(style.color)), light(behind(element))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    const need = parseFloat(style.fontSize) >= 24 ? 3 : 4.5;
    if (ratio < need) found[`${style.color} on ${behind(element)}`] =
      `${ratio.toFixed(2)}: ${element.tagName} ${element.textContent.trim().slice(0, 40)}`;
  }
  return Object.values(found);
})()"""


class Tab:
    """A page of a headless browser, spoken to by the DevTools protocol over two pipes."""

    def __init__(self, send, receive):
        self.send, self.receive = send, receive
        self.number, self.session, self.events = 0, None, []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self.session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")
        self.size(1280, 800)

    def call(self, method, **params):
        self.number += 1
        message = {"id": self.number, "method": method, "params": params}
        if self.session:
            message["sessionId"] = self.session
        self.send.write(json.dumps(message).encode() + b"\0")
        self.send.flush()
        while True:
            answer = self.read()
            if answer.get("id") == self.number:
                assert "error" not in answer, answer
                return answer["result"]
            self.events.append(answer)

    def read(self):
        message = b""
        while not message.endswith(b"\0"):
            byte = self.receive.read(1)
            assert byte, "the browser has gone"
            message += byte
        return json.loads(message[:-1])

    def size(self, width, height, ratio=1):
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=height, deviceScaleFactor=ratio, mobile=False,
        )  # fmt: skip

    def scheme(self, name, motion="reduce"):
        features = [
            {"name": "prefers-color-scheme", "value": name},
            {"name": "prefers-reduced-motion", "value": motion},
        ]
        self.call("Emulation.setEmulatedMedia", features=features)

    def visit(self, path):
        """Open any page and wait until it is drawn."""
        self.call("Page.navigate", url="about:blank")
        self.events.clear()
        self.call("Page.navigate", url=path.as_uri())
        self.js(
            "new Promise(done => { const look = () => document.readyState === 'complete'"
            " && location.protocol === 'file:'"
            " ? requestAnimationFrame(() => requestAnimationFrame(done)) : setTimeout(look, 20);"
            " look(); })"
        )
        return self

    def open(self, path, fragment=""):
        self.call("Page.navigate", url="about:blank")
        self.events.clear()
        self.call("Page.navigate", url=path.as_uri() + fragment)
        self.js(
            "new Promise((done, fail) => { setTimeout(fail, 30000, 'not ready');"
            " const look = () => document.querySelector('[data-ready]')"
            " ? requestAnimationFrame(() => requestAnimationFrame(done)) : setTimeout(look, 20);"
            " look(); })"
        )
        return self

    def js(self, source):
        answer = self.call(
            "Runtime.evaluate", expression=source, awaitPromise=True, returnByValue=True
        )
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def text(self, selector):
        return self.js(f"document.querySelector({json.dumps(selector)}).innerText")

    def shown(self, selector):
        return self.js(f"document.querySelector({json.dumps(selector)}).checkVisibility()")

    def mouse(self, kind, x, y, **more):
        self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, **more)

    def click(self, x, y):
        self.mouse("mouseMoved", x, y)
        self.mouse("mousePressed", x, y, button="left", clickCount=1)
        self.mouse("mouseReleased", x, y, button="left", clickCount=1)

    def key(self, name, text=""):
        down = {"type": "keyDown", "key": name} | ({"text": text} if text else {})
        self.call("Input.dispatchKeyEvent", **down)
        self.call("Input.dispatchKeyEvent", type="keyUp", key=name)

    def picture(self):
        data = self.call("Page.captureScreenshot")["data"]
        return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB"))

    def contrasts(self):
        """The least contrast of the texts that are shown with what they stand on, and which it is.

        After WCAG 2.2: 4.5 is asked of text, 3 of large one. Text of the same colours counts once.
        """
        return self.js(CONTRASTS)

    def complaints(self):
        """What the page did that it should not: errors, refused scripts, requests."""
        found = []
        for event in self.events:
            method, params = event["method"], event["params"]
            if method == "Runtime.exceptionThrown" or method == "Log.entryAdded":
                found.append(params)
            elif method == "Network.requestWillBeSent":
                url = params["request"]["url"]
                if not url.startswith(("data:", "file:")):
                    found.append(url)
        return found


@contextmanager
def browser(folder):
    ours, theirs = os.pipe(), os.pipe()
    command = [sys.executable, "-c", REWIRE, str(ours[0]), str(theirs[1])]
    process = subprocess.Popen(
        [*command, BROWSER, *FLAGS, f"--user-data-dir={folder}", "about:blank"],
        pass_fds=(ours[0], theirs[1]),
        stderr=subprocess.DEVNULL,
    )
    os.close(ours[0])
    os.close(theirs[1])
    try:
        with os.fdopen(ours[1], "wb") as send, os.fdopen(theirs[0], "rb") as receive:
            yield Tab(send, receive)
    finally:
        process.wait(timeout=30)  # it ends when its pipes do
