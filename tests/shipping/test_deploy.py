"""What is deployed beside the package: units that systemd accepts, and a broker's settings."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from broker import MOSQUITTO, Mosquitto

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
UNITS = sorted(DEPLOY.glob("*.service"))
ANALYZE = shutil.which("systemd-analyze")
# systemd's own measure of what a service could reach if it were taken over: 0 is nothing, 10 everything, 2 is "OK".
EXPOSURE_MAX = 2.0


def settings(unit: Path) -> dict[str, list[str]]:
    """Settings of a unit by name."""
    found: dict[str, list[str]] = {}
    for line in unit.read_text(encoding="utf-8").splitlines():
        if "=" in line and not line.startswith("#"):
            name, _, value = line.partition("=")
            found.setdefault(name, []).append(value)
    return found


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_units_keep_a_service_to_its_own_files(unit: Path) -> None:
    found = settings(unit)
    assert found["ProtectSystem"] == ["strict"] and found["NoNewPrivileges"] == ["yes"]
    assert found["User"] == ["fusion"], "files of people are their owner's alone, so its programs share a user"
    assert found["CapabilityBoundingSet"] == [""] and found["UMask"] == ["0077"] and found["LimitCORE"] == ["0"]
    assert found["Restart"] == ["always"] and "MemoryMax" in found
    assert "WatchdogSec" not in found, "a service that sends no sd_notify messages would be killed by it"
    # Numba compiles at run time.
    assert "MemoryDenyWriteExecute" not in found


@pytest.mark.skipif(ANALYZE is None, reason="no systemd-analyze on this machine")
@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_systemd_accepts_the_units(unit: Path) -> None:
    done = subprocess.run([str(ANALYZE), "verify", unit], capture_output=True, text=True)
    complaints = [line for line in done.stderr.splitlines() if "/opt/fusion/bin/fusion is not executable" not in line]
    assert not [line for line in complaints if unit.stem.rstrip("@") in line], done.stderr
    rated = subprocess.run([str(ANALYZE), "security", "--offline=true", unit], capture_output=True, text=True)
    exposure = re.search(r"exposure level for .*: ([\d.]+)", rated.stdout)
    assert exposure is not None and float(exposure[1]) <= EXPOSURE_MAX, rated.stdout


def test_serve_has_longer_to_stop_than_its_stores() -> None:
    from fusion.live.supervisor import LIMITS

    (stop,) = settings(DEPLOY / "fusion-serve.service")["TimeoutStopSec"]
    assert float(stop) >= LIMITS.stop_max_s + 10.0


def test_the_broker_takes_what_an_engine_reads_and_no_more() -> None:
    from fusion.live.messages import MESSAGE_MAX_BYTES

    text = (DEPLOY / "mosquitto.conf").read_text(encoding="utf-8")
    assert f"message_size_limit {MESSAGE_MAX_BYTES}\n" in text
    assert "allow_anonymous false" in text and not re.search(r"^listener 1883", text, re.M), "TLS alone"


def rules(text: str, store: str) -> list[str]:
    """The rules of an access list, for any store."""
    lines = [line.strip() for line in text.splitlines()]
    return [line.replace(f"/v1/{store}/", "/v1/STORE/") for line in lines if line and not line.startswith("#")]


def test_the_deployed_access_list_is_the_documented_one() -> None:
    """The documented one is tried with a real broker, see tests/attacks/test_network.py."""
    page = (ROOT / "docs" / "mqtt.md").read_text(encoding="utf-8")
    (documented,) = re.findall(r"```conf\n# acl\n(.*?)```", page, re.S)
    deployed = rules((DEPLOY / "mosquitto.acl").read_text(encoding="utf-8"), "box17")
    assert deployed == rules(documented, "nanostore") and len(deployed) > 20


@pytest.mark.skipif(MOSQUITTO is None, reason="no mosquitto on this machine")
def test_the_broker_starts_with_the_deployed_settings(tmp_path: Path) -> None:
    """All of them but those that name files of the machine it is deployed on."""
    elsewhere = ("listener", "certfile", "keyfile", "tls_version", "password_file", "acl_file", "persistence")
    twice = ("autosave_interval", "max_queued_messages", "max_inflight_messages")  # `Mosquitto` sets them itself.
    lines = (DEPLOY / "mosquitto.conf").read_text(encoding="utf-8").splitlines()
    kept = [line for line in lines if line and not line.startswith(("#", *elsewhere, *twice))]
    broker = Mosquitto(tmp_path / "broker", "\n".join([*kept, ""]))
    broker.stop()
    assert "Error" not in (tmp_path / "broker" / "log").read_text(encoding="utf-8")
