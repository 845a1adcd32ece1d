"""Faults of gates: scans that are late, lost, doubled, without a person, at the wrong gate."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

from fusion.observations import GateScan, Observation
from fusion.simulation.faults.fault import Breaker, Fault, Part, Scene

# An account of no shopper.
STRANGER = "acc-stranger"


def _map(scene: Scene, change: Callable[[GateScan], Iterable[GateScan]]) -> Iterator[Observation]:
    """The run with scans changed, in order of time again: a scan arrives at the time it states."""
    observations: list[Observation] = []
    for observation in scene.observations:
        if isinstance(observation, GateScan):
            scene.sensors.add(observation.gate)
            observations += change(observation)
        else:
            observations.append(observation)
    observations.sort(key=lambda observation: observation.t_ns)
    return iter(observations)


def _late(seconds: float) -> Breaker:
    return lambda scene: _map(scene, lambda s: [replace(s, t_ns=s.t_ns + round(seconds * 1e9))])


def _lost(scene: Scene) -> Iterator[Observation]:
    """The scan of one shopper is lost: the one who takes most."""
    visit = scene.visit()
    account = visit.account if visit else None
    return _map(scene, lambda s: [] if s.account == account else [s])


def _doubled(scene: Scene) -> Iterator[Observation]:
    """Every credential is read twice, half a second apart."""
    return _map(scene, lambda s: [s, replace(s, t_ns=s.t_ns + 500_000_000)])


def _renamed(scene: Scene) -> Iterator[Observation]:
    """Scans come from a gate that the store does not have."""
    return _map(scene, lambda s: [replace(s, gate=f"{s.gate}-old")])


def _of_no_person(scene: Scene) -> Iterator[Observation]:
    """A credential is read when the first shopper has left the gate."""
    visits = [visit for visit in scene.truth.visits if visit.account]
    times_ns = [(visit.enter_ns + 6 * 10**9) for visit in visits[:1]]
    gate = next((o.gate for o in scene.observations if isinstance(o, GateScan)), "")
    scene.sensors.add(gate)
    extra = [GateScan(t_ns, gate, "qr", STRANGER) for t_ns in times_ns]
    return iter(sorted([*scene.observations, *extra], key=lambda observation: observation.t_ns))


def _at_the_exit(scene: Scene) -> Iterator[Observation]:
    """The names of entry and exit are exchanged."""
    ways_in = [gate.id for gate in scene.store.gate if gate.direction == "in"]
    ways_out = [gate.id for gate in scene.store.gate if gate.direction == "out"]
    names = dict(zip(ways_in, ways_out)) | dict(zip(ways_out, ways_in))
    return _map(scene, lambda s: [replace(s, gate=names.get(s.gate, s.gate))])


def _none(scene: Scene) -> Iterator[Observation]:
    """No gate reports any scan."""
    return _map(scene, lambda s: [])


_G = Part.GATES
GATE_FAULTS = (
    Fault("scans 1.5 s late", _G, _late(1.5), "gates stamp a scan 1.5 s after it"),
    Fault("scans 5 s late", _G, _late(5.0), "gates stamp a scan 5 s after it"),
    Fault("scans early", _G, _late(-1.5), "gates stamp a scan 1.5 s before it"),
    Fault("a scan lost", _G, _lost, "the scan of one shopper is lost"),
    Fault("no scans", _G, _none, "no gate reports a scan"),
    Fault("scans twice", _G, _doubled, "every credential is read twice"),
    Fault("an unknown gate", _G, _renamed, "scans come from a gate that the store does not have", warned=True),
    Fault("a scan without a person", _G, _of_no_person, "a credential is read while no newcomer is at the gate"),
    Fault("gates exchanged", _G, _at_the_exit, "the names of entry and exit are exchanged"),
)
