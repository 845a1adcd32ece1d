"""Hot loops of the search for a camera's pose: people that other cameras place, compared to what it shows.

Arrays in, preallocated arrays out. A pair is a person and a detection at one instant: joints_m (n, K, 3) and
velocities_m_s (n, 3) in the world, rays (n, K, 2) in normalised image coordinates; NaN where a joint is unknown or
unseen. A state is a rotation (3, 3) camera from world, a centre (3,) in metres, the camera's lateness in seconds and a
factor of its focal length.
"""

import numpy as np
from numba import njit

# Unknowns of a state: turn about the camera's axes, shift of its centre in the world, lateness, focal length's
# logarithm.
N_UNKNOWNS = 8
LATE, FOCAL = 6, 7
# Nearest that a body is to a camera, metres: one on its axis shows nothing below it.
DEPTH_MIN_M = 0.3


@njit(cache=True, nogil=True)
def compare(joints_m, velocities_m_s, rays, rotation, centre_m, late_s, focal, joints_min, body_m, rms_m):
    """Differences of pairs in metres at the body: body_m (n, 2) their mean over joints, rms_m (n,) root mean square.

    rms_m is infinite where fewer than joints_min joints are known, shown and before the camera.
    """
    for p in range(joints_m.shape[0]):
        count = 0
        sum_x = 0.0
        sum_y = 0.0
        squares = 0.0
        shift_x = late_s * velocities_m_s[p, 0] - centre_m[0]
        shift_y = late_s * velocities_m_s[p, 1] - centre_m[1]
        shift_z = late_s * velocities_m_s[p, 2] - centre_m[2]
        for j in range(joints_m.shape[1]):
            if np.isnan(rays[p, j, 0]) or np.isnan(joints_m[p, j, 0]):
                continue
            x = joints_m[p, j, 0] + shift_x
            y = joints_m[p, j, 1] + shift_y
            z = joints_m[p, j, 2] + shift_z
            depth = rotation[2, 0] * x + rotation[2, 1] * y + rotation[2, 2] * z
            if depth <= DEPTH_MIN_M:
                continue
            off_x = rays[p, j, 0] / focal * depth - (rotation[0, 0] * x + rotation[0, 1] * y + rotation[0, 2] * z)
            off_y = rays[p, j, 1] / focal * depth - (rotation[1, 0] * x + rotation[1, 1] * y + rotation[1, 2] * z)
            count += 1
            sum_x += off_x
            sum_y += off_y
            squares += off_x * off_x + off_y * off_y
        body_m[p, 0] = sum_x / max(count, 1)
        body_m[p, 1] = sum_y / max(count, 1)
        rms_m[p] = np.sqrt(squares / count) if count >= joints_min else np.inf


@njit(cache=True, nogil=True)
def linearise(
    joints_m, velocities_m_s, rays, rotation, centre_m, late_s, focal, scale_m, normal, scores,
):  # fmt: skip
    """Normal equations about a state with Cauchy's weights 1 / (1 + (r / scale_m)^2): metres, not yet deviations.

    Writes normal (8, 8) and scores (n, 8), the gradient of each pair, whose sum is the right side. The least-squares
    step is -normal^-1 sum(scores). Derivatives: a turn w moves a point at x of the camera's frame by w x x, a shift of
    the centre by c moves it by -R c.
    """
    row_x = np.zeros(N_UNKNOWNS)
    row_y = np.zeros(N_UNKNOWNS)
    normal[:] = 0.0
    scores[:] = 0.0
    for p in range(joints_m.shape[0]):
        for j in range(joints_m.shape[1]):
            if np.isnan(rays[p, j, 0]) or np.isnan(joints_m[p, j, 0]):
                continue
            x = joints_m[p, j, 0] + late_s * velocities_m_s[p, 0] - centre_m[0]
            y = joints_m[p, j, 1] + late_s * velocities_m_s[p, 1] - centre_m[1]
            z = joints_m[p, j, 2] + late_s * velocities_m_s[p, 2] - centre_m[2]
            at_x = rotation[0, 0] * x + rotation[0, 1] * y + rotation[0, 2] * z
            at_y = rotation[1, 0] * x + rotation[1, 1] * y + rotation[1, 2] * z
            depth = rotation[2, 0] * x + rotation[2, 1] * y + rotation[2, 2] * z
            if depth <= DEPTH_MIN_M:
                continue
            u = at_x / depth
            v = at_y / depth
            off_x = at_x - rays[p, j, 0] / focal * depth
            off_y = at_y - rays[p, j, 1] / focal * depth
            weight = 1.0 / (1.0 + (off_x * off_x + off_y * off_y) / (scale_m * scale_m))
            row_x[0] = -u * at_y
            row_x[1] = depth + u * at_x
            row_x[2] = -at_y
            row_y[0] = -depth - v * at_y
            row_y[1] = v * at_x
            row_y[2] = at_x
            row_x[LATE] = 0.0
            row_y[LATE] = 0.0
            for i in range(3):
                along_x = rotation[0, i] - u * rotation[2, i]
                along_y = rotation[1, i] - v * rotation[2, i]
                row_x[3 + i] = -along_x
                row_y[3 + i] = -along_y
                row_x[LATE] += along_x * velocities_m_s[p, i]
                row_y[LATE] += along_y * velocities_m_s[p, i]
            row_x[FOCAL] = at_x
            row_y[FOCAL] = at_y
            for i in range(N_UNKNOWNS):
                scores[p, i] += weight * (row_x[i] * off_x + row_y[i] * off_y)
                for k in range(i + 1):
                    normal[i, k] += weight * (row_x[i] * row_x[k] + row_y[i] * row_y[k])
    for i in range(N_UNKNOWNS):
        for k in range(i):
            normal[k, i] = normal[i, k]


def warm_up() -> None:
    """Call the kernels once on tiny inputs: a first call loads or compiles them and takes up to a second."""
    joints_m, velocities, rays = np.ones((1, 2, 3)), np.zeros((1, 3)), np.zeros((1, 2, 2))
    state = np.eye(3), np.zeros(3), 0.0, 1.0
    compare(joints_m, velocities, rays, *state, 1, np.zeros((1, 2)), np.zeros(1))
    linearise(joints_m, velocities, rays, *state, 1.0, np.zeros((N_UNKNOWNS, N_UNKNOWNS)), np.zeros((1, N_UNKNOWNS)))
