"""A real MQTT broker for tests and benchmarks: Mosquitto on a free port, with persistence."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

# Packages install the daemon outside the paths of ordinary users.
_PATH = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"])
MOSQUITTO = shutil.which("mosquitto", path=_PATH)
# Generous: a machine may be busy with other work.
START_MAX_S = 60.0
# As docs/mqtt.md recommends.
SETTINGS = """\
persistence true
autosave_interval 5
max_queued_messages 100000
max_inflight_messages 1000
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Mosquitto:
    """A broker in a folder; its sessions survive `stop` and `start`.

    Attributes:
        folder: holds its settings, its log and its sessions.
        port, address: where it listens.
    """

    def __init__(self, folder: Path, extra: str = "allow_anonymous true\n", start: bool = True) -> None:
        assert MOSQUITTO is not None
        self.folder, self.port = folder, free_port()
        self.address = f"127.0.0.1:{self.port}"
        folder.mkdir(parents=True, exist_ok=True)
        user = "user root\n" if os.geteuid() == 0 else ""  # Otherwise it drops root and cannot write here.
        self._settings = folder / "mosquitto.conf"
        self._settings.write_text(
            f"listener {self.port} 127.0.0.1\n{extra}{user}{SETTINGS}persistence_location {folder}/\n"
        )
        self._process: subprocess.Popen[bytes] | None = None
        if start:
            self.start()

    def start(self) -> None:
        with open(self.folder / "log", "ab") as log:
            self._process = subprocess.Popen([str(MOSQUITTO), "-c", str(self._settings)], stdout=log, stderr=log)
        until_s = time.monotonic() + START_MAX_S
        while time.monotonic() < until_s:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.02)
        raise RuntimeError((self.folder / "log").read_text())

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait(START_MAX_S)
            self._process = None

    def cpu_s(self) -> float:
        """CPU time of the broker so far."""
        assert self._process is not None
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
