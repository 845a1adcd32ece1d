"""The doctor's self-test: compiled kernels against NumPy, and a simulated shop through the engine."""

from __future__ import annotations

import time
from collections.abc import Iterator

from fusion.setup.examination import Line

SELF_TEST_MAX_S = 5.0
# Distance between points of the kernel and of NumPy, metres.
KERNEL_TOLERANCE_M = 1e-6


def kernels_agree() -> Iterator[Line]:
    """Points that five cameras see, triangulated by the compiled kernels and by NumPy (singular values)."""
    import numpy as np

    from fusion.people.geometry import Rig, triangulate
    from fusion.simulation import demo_store

    rig = Rig.from_cameras(demo_store(n_cameras=5).cameras)
    random = np.random.default_rng(1)
    points_m = random.uniform([2.0, 2.0, 0.3], [6.0, 4.0, 1.9], (200, 3))
    pixels = rig.project(points_m)
    undistorted = rig.undistort(pixels)
    located = triangulate(rig, undistorted)
    camera = rig.image_from_camera @ rig.camera_from_world
    rows = undistorted[..., None] * camera[:, None, None, 2] - camera[:, None, :2]
    homogeneous = np.linalg.svd(rows.transpose(1, 0, 2, 3).reshape(len(points_m), -1, 4))[2][:, -1]
    expected = homogeneous[:, :3] / homogeneous[:, 3:]
    off_m = max(float(np.abs(located.points_m - other).max()) for other in (expected, points_m))
    if off_m < KERNEL_TOLERANCE_M:
        yield Line("ok", "kernels against NumPy", f"200 points agree to {off_m * 1e9:.2g} nm")
    else:
        advice = "build them again: pip install -e . --force-reinstall; FUSION_ISA=baseline until then"
        yield Line("fault", "kernels against NumPy", f"off by {off_m:.3g} m", advice)


def simulated_run() -> Iterator[Line]:
    """A minute and a half of a simulated shop through the engine: the receipts must be what was taken."""
    from fusion.engine import Engine
    from fusion.results import Receipt
    from fusion.simulation import Scenario, Simulation, demo_store

    started_s = time.perf_counter()
    store = demo_store(n_cameras=5, n_plates=16, n_products=12)
    engine = Engine(store)
    ready_s = time.perf_counter() - started_s
    simulation = Simulation(store, Scenario(seed=3, minutes=1.5, shoppers=3, frame_rate_hz=10.0))
    receipts = []
    for observation in simulation.observations():
        receipts += [result for result in engine.feed(observation) if isinstance(result, Receipt)]
    receipts += [result for result in engine.close() if isinstance(result, Receipt)]
    took_s = time.perf_counter() - started_s
    got = {receipt.account: {line.gtin: line.quantity for line in receipt.lines} for receipt in receipts}
    want = {visit.account: visit.items for visit in simulation.truth.visits}
    settled = sum(receipt.status == "settled" for receipt in receipts)
    pieces = sum(sum(items.values()) for items in want.values())
    if got != want or not pieces:
        n_right = sum(got.get(account) == items for account, items in want.items())
        found = f"{n_right} of {len(want)} receipts of a simulated run are right"
        advice = "a line above has the cause; else the engine is at fault: report it"
        yield Line("fault", "self-test", found, advice)
        return
    found = f"{len(want)} simulated visits, {pieces} pieces: every receipt right, {settled} settled; {took_s:.1f} s"
    if took_s > SELF_TEST_MAX_S:
        advice = f"the first start compiles kernels ({ready_s:.1f} s here): run it again; else the machine is slow"
        yield Line("warning", "self-test", found, advice)
    else:
        yield Line("ok", "self-test", found)
