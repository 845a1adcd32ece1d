"""`fusion demo`: a shop and its pages for staff, shoppers and doors, which leave nothing behind."""

from __future__ import annotations

import http.client
import json
import re
import signal
import stat
import tempfile
from pathlib import Path
from urllib.parse import urlencode

from commands.processes import start


def demonstrations() -> set[Path]:
    return set(Path(tempfile.gettempdir()).glob("fusion-demo-*"))


def test_a_demonstration_shows_its_pages_and_leaves_nothing_behind() -> None:
    before = demonstrations()
    process = start("demo", "--no-browser", "--minutes", 3, "--shoppers", 2, "--lead", 0, "--speed", 1)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        found = re.search(r"http://127\.0\.0\.1:(\d+)/ .*sign in as (\S+) with (\S+)", line)
        assert found is not None, line + process.communicate(timeout=60)[1]
        port, name, password = found.groups()
        shopper = re.search(r"http://127\.0\.0\.1:(\d+)/in#(\S+) ", process.stdout.readline())
        screen = re.search(r"http://127\.0\.0\.1:(\d+)/screen   type in (\w{4} \w{4}) ", process.stdout.readline())
        assert shopper is not None and screen is not None
        (folder,) = demonstrations() - before
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        connection = http.client.HTTPConnection("127.0.0.1", int(port), timeout=60)
        form = urlencode({"name": name, "password": password})
        connection.request("POST", "/sign-in", form, {"Origin": f"http://127.0.0.1:{port}"})
        answer = connection.getresponse()
        assert answer.status == 303, answer.read()
        answer.read()
        cookie = (answer.getheader("set-cookie") or "").split(";")[0]
        connection.request("GET", "/", headers={"Cookie": cookie})
        page = connection.getresponse()
        assert page.status == 200 and b"<title>" in page.read()
        public = http.client.HTTPConnection("127.0.0.1", int(shopper[1]), timeout=60)
        origin = {"Origin": f"http://127.0.0.1:{shopper[1]}", "Content-Type": "application/json"}
        for path, message in (("/in", None), ("/screen", None), ("/api/sign-in", {"token": shopper[2]}),
                              ("/screen/api/pair", {"code": screen[2].replace(" ", "")})):  # fmt: skip
            if message is None:
                public.request("GET", path)
            else:
                public.request("POST", path, json.dumps(message), origin)
            answer = public.getresponse()
            text = answer.read()
            assert answer.status == 200, (path, answer.status, text)
    finally:
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 0 and not err, out + err
    assert not folder.exists(), "a demonstration keeps nothing"
