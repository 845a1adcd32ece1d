# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""Looks at a few people of some cameras, in one pass each. A look comes a few times a second, so that neither its code
nor its data are in any cache: NumPy's calls would take ten times as long as their work.

C-contiguous arrays in, preallocated arrays out, nothing kept, nothing raised but for wrong types.
"""

from libc.math cimport fabsf, isfinite

import numpy as np

include "arrays.pxi"


def tally(keypoints, size_px, double beyond_share, float fraction_max, used):
    """What one frame's people look like.

    keypoints (n, n_joints, 3) float32 x, y, score; size_px (2,) of the picture; used (2,), raised to the largest
    coordinates of any joint as shares of the picture. Returns how many have a joint; how many of them have all joints
    within fraction_max of the origin; and how many have their middle more than beyond_share of the picture outside.
    """
    cdef const float* at = _floats(keypoints)
    cdef const double* size = _doubles(size_px)
    cdef double* share = _doubles(used)
    cdef int n = _length(keypoints), n_joints = <int>cnp.PyArray_DIM(keypoints, 1), i, j, k
    cdef int n_people = 0, n_fractions = 0, n_beyond = 0, n_found
    cdef float largest, sums[2]
    cdef float top[2]
    cdef double middle
    cdef bint is_beyond
    top[0] = top[1] = 0.0
    for i in range(n):
        n_found, largest = 0, 0.0
        sums[0] = sums[1] = 0.0
        for j in range(n_joints):
            if at[2] > 0.0 and isfinite(at[0]) and isfinite(at[1]) and isfinite(at[2]):
                n_found += 1
                for k in range(2):
                    sums[k] += at[k]
                    largest = max(largest, fabsf(at[k]))
                    top[k] = max(top[k], at[k])
            at += 3
        if n_found == 0:
            continue
        n_people += 1
        n_fractions += largest < fraction_max
        is_beyond = False
        for k in range(2):
            middle = <double>sums[k] / n_found / size[k]
            is_beyond = is_beyond or middle < -beyond_share or middle > 1.0 + beyond_share
        n_beyond += is_beyond
    for k in range(2):
        share[k] = max(share[k], top[k] / size[k])
    return n_people, n_fractions, n_beyond


def gather(list frames, list limits, int turn):
    """People of several frames side by side, in double precision.

    frames: keypoints of each, (n_people, n_joints, 3) float32. limits: how many people of each to take at most; where
    there are more, those from number `turn` on, in a circle. Joints of which any number is not finite become zero.
    Returns (n, n_joints, 3), and how many are of each frame.
    """
    cdef int i, k, first, n_people, n_joints = <int>cnp.PyArray_DIM(frames[0], 1)
    cdef Py_ssize_t j
    cdef list counts = [min(_length(frame), limit) for frame, limit in zip(frames, limits)]
    people = np.empty((sum(counts), n_joints, 3))
    cdef double* to = _doubles(people)
    cdef const float* at
    for frame, n in zip(frames, counts):
        n_people = _length(frame)
        first = turn % n_people if n < n_people else 0
        for i in range(n):
            at = _floats(frame) + 3 * n_joints * ((first + i) % n_people)
            for j in range(n_joints):
                for k in range(3):
                    to[k] = at[3 * j + k] if isfinite(at[3 * j]) and isfinite(at[3 * j + 1]) and isfinite(at[3 * j + 2]) else 0.0
                to += 3
    return people, counts


def scale(people, views, factors, lenses, points_px, lens):
    """Bring coordinates to pictures of another size, and each person's lens beside them.

    people (n, n_joints, 3), of views (n,); factors (n_views, 2) of width and height; lenses (n_views, m). Out: points_px
    (n, n_joints, 2), lens (n, m).
    """
    cdef const double* at = _doubles(people)
    cdef const long long* view = _longs(views)
    cdef const double* factor = _doubles(factors)
    cdef const double* lens_of = _doubles(lenses)
    cdef double* to = _doubles(points_px)
    cdef double* lens_to = _doubles(lens)
    cdef int n = _length(people), n_joints = <int>cnp.PyArray_DIM(people, 1), n_numbers = <int>cnp.PyArray_DIM(lenses, 1)
    cdef int i, j, k
    for i in range(n):
        for j in range(n_joints):
            to[0], to[1] = at[0] * factor[2 * view[i]], at[1] * factor[2 * view[i] + 1]
            to, at = to + 2, at + 3
        for k in range(n_numbers):
            lens_to[n_numbers * i + k] = lens_of[n_numbers * view[i] + k]


def spread(normalised, people, views, var_of, double score_min, double joints_min, int n_own, x, y, var, seen):
    """Write people as the kernels that compare pairs of detections read them.

    normalised (n, n_joints, 2) image coordinates; people (n, n_joints, 3), whose scores count from score_min on; var_of
    (n_views,) variance of their coordinates, and views (n,). Out: x, y, var, seen (n, n_padded) float32; a joint is
    unseen, and zero, where a float32 does not hold its coordinates. Returns how many of the first n_own people have
    joints_min joints.
    """
    cdef const double* at = _doubles(normalised)
    cdef const double* person = _doubles(people)
    cdef const long long* view = _longs(views)
    cdef const double* of_view = _doubles(var_of)
    cdef float* u = _floats(x)
    cdef float* v = _floats(y)
    cdef float* variance = _floats(var)
    cdef float* is_seen = _floats(seen)
    cdef int n = _length(people), n_joints = <int>cnp.PyArray_DIM(people, 1), n_padded = <int>cnp.PyArray_DIM(x, 1), i, j
    cdef int n_found, n_enough = 0
    cdef float both
    for i in range(n):
        n_found = 0
        for j in range(n_padded):
            u[j] = v[j] = is_seen[j] = 0.0
            variance[j] = <float>of_view[view[i]]
            if j < n_joints:
                both = <float>at[2 * j] + <float>at[2 * j + 1]
                if person[3 * j + 2] >= score_min and isfinite(both):
                    u[j], v[j], is_seen[j] = <float>at[2 * j], <float>at[2 * j + 1], 1.0
                    n_found += 1
        n_enough += i < n_own and n_found >= joints_min
        at, person = at + 2 * n_joints, person + 3 * n_joints
        u, v, variance, is_seen = u + n_padded, v + n_padded, variance + n_padded, is_seen + n_padded
    return n_enough
