"""A headless Chromium over its DevTools protocol: page widths, and pictures of what a reader sees."""

from __future__ import annotations

import asyncio
import base64
import json
import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--remote-debugging-port=0")
# the widest thing that sticks out, not counting what lies in a box that scrolls by itself
STICKS_OUT = """(() => {
  const limit = document.documentElement.clientWidth, found = [];
  for (const e of document.body.querySelectorAll('*'))
    if (e.getBoundingClientRect().right > limit + 1 && !e.closest('.scroll'))
      found.push(e.tagName + '.' + e.className + ' ' + (e.textContent || '').trim().slice(0, 40));
  return JSON.stringify({page: document.documentElement.scrollWidth, limit, found: found.slice(0, 5)});
})()"""
MAX_PICTURE_PX = 16_000
"""Chromium paints no taller picture; the widths are of the whole page all the same."""


def find() -> str | None:
    """The program, where there is one."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


@dataclass(frozen=True)
class View:
    """How a page is looked at."""

    name: str
    width: int
    media: str = "screen"
    scheme: str = "light"


@dataclass(frozen=True)
class Seen:
    """What the browser found."""

    page_width: int
    width: int
    sticks_out: list[str]
    picture: bytes


def look(page: Path, views: Sequence[View], profile: Path) -> dict[str, Seen]:
    """Open a page in every view. `profile` is an empty folder for the browser's own files."""
    command = [str(find()), *FLAGS, f"--user-data-dir={profile}", "about:blank"]
    child = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    try:
        assert child.stderr is not None
        for line in child.stderr:
            if found := re.search(r"ws://(127\.0\.0\.1:\d+)/", line):
                return asyncio.run(_look(found[1], page, views))
        raise AssertionError("the browser ended without a word")
    finally:
        child.terminate()
        child.wait(20)


async def _look(address: str, page: Path, views: Sequence[View]) -> dict[str, Seen]:
    import aiohttp

    async with aiohttp.ClientSession() as session:
        targets = await (await session.get(f"http://{address}/json")).json(content_type=None)
        url = next(target["webSocketDebuggerUrl"] for target in targets if target["type"] == "page")
        async with session.ws_connect(url, max_msg_size=0) as socket:
            tab = _Tab(socket)
            await tab.ask("Page.enable")
            return {view.name: await _see(tab, page, view) for view in views}


async def _see(tab: _Tab, page: Path, view: View) -> Seen:
    metrics = {"width": view.width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    await tab.ask("Emulation.setDeviceMetricsOverride", **metrics)
    features = [{"name": "prefers-color-scheme", "value": view.scheme}]
    await tab.ask("Emulation.setEmulatedMedia", media=view.media, features=features)
    await tab.ask("Page.navigate", url=page.resolve().as_uri())
    await tab.until("Page.loadEventFired")
    answer = await tab.ask("Runtime.evaluate", expression=STICKS_OUT)
    found = json.loads(answer["result"]["value"])
    size = (await tab.ask("Page.getLayoutMetrics"))["cssContentSize"]
    clip = {"x": 0, "y": 0, "width": size["width"], "height": min(size["height"], MAX_PICTURE_PX), "scale": 1}
    shot = await tab.ask("Page.captureScreenshot", format="png", captureBeyondViewport=True, clip=clip)
    return Seen(found["page"], found["limit"], found["found"], base64.b64decode(shot["data"]))


class _Tab:
    """Questions and answers over one web socket."""

    def __init__(self, socket: Any) -> None:
        self.socket, self.number, self.events = socket, 0, list[str]()

    async def ask(self, method: str, **params: Any) -> dict[str, Any]:
        self.number += 1
        await self.socket.send_json({"id": self.number, "method": method, "params": params})
        while (message := await self._next()).get("id") != self.number:
            pass
        assert "error" not in message, message
        result: dict[str, Any] = message["result"]
        return result

    async def until(self, event: str) -> None:
        while event not in self.events:
            await self._next()
        self.events.clear()

    async def _next(self) -> dict[str, Any]:
        message: dict[str, Any] = await self.socket.receive_json(timeout=60)
        if "method" in message:
            self.events.append(message["method"])
        return message
