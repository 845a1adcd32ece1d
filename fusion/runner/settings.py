"""What a run is asked to do."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class LiveSettings:
    """How a live store is reached.

    Attributes:
        broker: HOST:PORT, mqtt://USER@HOST:PORT, or mqtts://... for TLS.
        password_file: holds the broker's password; without it FUSION_MQTT_PASSWORD does.
        authorities: certificate authorities to trust; the system's where None.
        record: new folder for a recording of the observations that are used.
        code_key: public key (PEM) of the server that signs QR codes.
        staff_list: tokens that let staff in, one a line.
    """

    broker: str
    password_file: Path | None = None
    authorities: Path | None = None
    record: Path | None = None
    code_key: Path | None = None
    staff_list: Path | None = None


@dataclass(frozen=True)
class RunSettings:
    """What `fusion run` is asked to do; by default, simulate the demonstration shop.

    Attributes:
        out: folder for results, report.html and ledger.sqlite.
        recording: folder of a recording to replay; without one a store is simulated or run live.
        store: store folder to simulate or to run live.
        seed, minutes, shoppers: of the simulation; None: as example.toml has it, else 5 minutes and 8 shoppers.
        ledger: path or URL of the books; None: a new OUT/ledger.sqlite.
        vault: file of the vault beside books in PostgreSQL.
        smtp: HOST:PORT of the mail server for receipts.
        console: publish the run to consoles through OUT/live.sock.
        view: Rerun recording to write.
        mcap: MCAP file to write.
        realtime: hold the data back to their own pace.
        speed: with realtime, how many seconds of data pass in a second.
        lead_s: with realtime, seconds of data at the start that pass as fast as possible.
        early: give early receipts; None: where the store is live.
        till: till.toml of a live store.
        live: the streams of a live store.
    """

    out: Path
    recording: Path | None = None
    store: Path | None = None
    seed: int = 1
    minutes: float | None = None
    shoppers: int | None = None
    ledger: str | None = None
    vault: Path | None = None
    smtp: str | None = None
    console: bool = False
    view: Path | None = None
    mcap: Path | None = None
    realtime: bool = False
    speed: float = 1.0
    lead_s: float = 0.0
    early: bool | None = None
    till: Path | None = None
    live: LiveSettings | None = None
