"""Phones that follow their baskets, for `python -m bench pages`: many streams in one process of their own.

Reads {"port", "cookies": {account: [cookie, ...]}} from standard input, opens a stream for each cookie, prints "open"
once all are, and after a further line on standard input what each account's phones were sent.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections import Counter

OPEN_MAX_S = 60.0


async def listen(port: int, account: str, cookie: str, counts: Counter[str], opened: asyncio.Semaphore) -> None:
    """Follow one phone's stream; whatever it is sent must be of its own account."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 20)
    writer.write(f"GET /api/live HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nCookie: {cookie}\r\n\r\n".encode())
    status = await reader.readline()
    if b" 200 " not in status:
        raise SystemExit(f"a phone was answered {status!r}")
    opened.release()
    while line := await reader.readline():
        if line.startswith(b'data: {"basket"'):
            counts[account] += 1
            counts[f"visit {json.loads(line[6:])['basket']['visit']} to {account}"] += 1


async def follow(port: int, cookies: dict[str, list[str]]) -> Counter[str]:
    """Open all streams, then count until standard input says to stop."""
    counts: Counter[str] = Counter()
    opened = asyncio.Semaphore(0)
    tasks = [
        asyncio.create_task(listen(port, account, cookie, counts, opened))
        for account, some in cookies.items()
        for cookie in some
    ]
    async with asyncio.timeout(OPEN_MAX_S):
        for _ in tasks:
            await opened.acquire()
    print("open", flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return counts


def main() -> None:
    asked = json.loads(sys.stdin.readline())
    print(json.dumps(asyncio.run(follow(asked["port"], asked["cookies"]))), flush=True)


if __name__ == "__main__":
    main()
