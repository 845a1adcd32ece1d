"""The counts of `python -m bench presence` on a small run."""

from __future__ import annotations

from bench.accuracy import presence


def small(name, **changes):
    case = next(case for case in presence.cases() if case.name.startswith(name))
    scenario = {"shoppers": 2, "minutes": 1.0, "picks_per_person": 40.0, **changes}
    return presence.Case(case.name, presence._shop("coco17", 4), scenario, 20.0, 6.0, case.single)


def test_everybody_is_counted_who_is_seen():
    counts = presence.measure(small("coco17, 0 %"), seed=1)
    assert 80 <= counts.instants <= 95 and counts.people > counts.instants
    assert counts.told == counts.people and counts.told_of_two == counts.two_see > 0.97 * counts.people
    assert counts.switches == counts.ghosts == 0


def test_nobody_is_seen_by_cameras_that_miss_all():
    counts = presence.measure(small("coco17, 0 %", person_miss_probability=1.0), seed=1)
    assert counts.people > 0 and counts.told == counts.two_see == 0
    assert presence.row("nobody", counts).split("|")[3].strip() == "0.00"


def test_single_instants_are_reconstructed_from_poor_detections():
    case = next(case for case in presence.cases() if case.name.startswith("reconstruct, room"))
    counts = presence.measure(case, seed=1, share=0.3)
    assert 100 < counts.two_see < counts.people
    assert counts.told_of_two >= 0.95 * counts.two_see
    assert counts.ghosts <= 0.1 * counts.instants
