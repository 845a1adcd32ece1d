// People from what cameras saw: detections made ready, matched to those predicted, joints filtered, limbs held. Plain
// C++17 over small_matrix.hpp; loops over the arrays of a Workspace (isa.hpp), nothing allocated, nothing raised.
//
// Image coordinates here are normalised: on the plane one unit in front of the camera, undistorted.
//
// Compiled once for each instruction set, into a namespace of its own: FUSION_ISA (see isa.hpp), hence without a guard.

namespace fusion {
namespace FUSION_ISA {

// Joint states: position and velocity, and the lower triangle of their covariance.
constexpr int kState = 6;
constexpr int kStateCov = Symmetric<kState>::kSize;

// No lens that OpenCV's model describes sees further off its axis: 84 degrees. Such a keypoint is a number gone wrong.
constexpr float kTangentMax = 10.0f;
// Layouts have at most this many groups of sixteen joints.
constexpr Size kJointGroups = 2;

// A group of joints, eight or sixteen of a row of padded lanes.
FUSION_INLINE LaneF load_joints(const double* row, Size first, Size n_padded) {
  Lane low, high{};
  load(low, row + first);
  if (first + kLanes < n_padded) load(high, row + first + kLanes);
  return narrow(low, high);
}

// The keys of a row of joints.
struct Keys {
  LaneFMask places, valid;

  explicit Keys(const Workspace& ws) {
    int at[kKeys], on[kKeys];
    for (Size k = 0; k < kKeys; ++k) {
      at[k] = ws.keys[k] < 0 ? 0 : int(ws.keys[k]);
      on[k] = ws.keys[k] < 0 ? 0 : -1;
    }
    std::memcpy(&places, at, sizeof(places));
    std::memcpy(&valid, on, sizeof(valid));
  }
  FUSION_INLINE LaneF of(const LaneF& one, const LaneF& other) const {
    return valid ? picked(one, other, places) : LaneF{};
  }
  FUSION_INLINE LaneF of(const double* row, Size n_padded) const {
    const LaneF one = load_joints(row, 0, n_padded);
    return of(one, n_padded > kLanesF ? load_joints(row, kLanesF, n_padded) : LaneF{});
  }
};

// ---- detections made ready -------------------------------------------------------------------------------------------

// What matching reads of a detection beside its keys: the part of the image that they and the cap on their distance
// span, how many were seen, and the sum of their variances.
enum Bound { kLeft, kRight, kTop, kBottom, kCount, kNoise };

// Detections as the tracker reads them: normalised coordinates, variance of each of the two, and 1 or 0 for seen; joints
// padded to n_padded lanes. Also, in single precision, the keys that matching compares. Returns the number of keypoints
// that claim to be seen but are not finite, or are where no lens looks.
//
// keypoints (n_views): each view's detections, (n, n_joints, 3), as many as start says. Single precision does: its error
// is a ten-thousandth of a pixel, and the detector's numbers have no more.
//
// A view's points are straightened in one row, whatever detections they are of, since a detection alone would leave half
// of its second vector empty; four vectors walk side by side.
inline Int prepare(const Workspace& ws, const float* const* keypoints) {
  // Where every third number is in two vectors of sixteen, and then in what was picked and a third: x, y, score.
  constexpr LaneFMask kFirst[3] = {{0, 3, 6, 9, 12, 15, 18, 21, 24, 27, 30, 0, 0, 0, 0, 0},
                                   {1, 4, 7, 10, 13, 16, 19, 22, 25, 28, 31, 0, 0, 0, 0, 0},
                                   {2, 5, 8, 11, 14, 17, 20, 23, 26, 29, 0, 0, 0, 0, 0, 0}};
  constexpr LaneFMask kThen[3] = {{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 17, 20, 23, 26, 29},
                                  {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 18, 21, 24, 27, 30},
                                  {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 16, 19, 22, 25, 28, 31}};
  const Keys keys(ws);
  Int n_broken = 0;
  const LaneF one = LaneF{} + 1.0f, none{};
  const Size n_joints = ws.n_joints, n_padded = ws.n_padded;
  const float cap = float(ws.joint_cost_cap), score_min = float(ws.score_min);
  // Joints beyond the layout's are the next detection's; what pads was seen by nobody.
  LaneFMask own[kJointGroups];
  for (Size g = 0; g < kJointGroups; ++g)
    for (Size k = 0; k < kLanesF; ++k) own[g][k] = g * kLanesF + k < n_joints ? -1 : 0;
  for (Size view = 0; view < ws.n_views; ++view) {
    const double* lens = ws.lenses + kIntrinsics * view;
    const float sure_var = float(ws.keypoint_sd_px * ws.keypoint_sd_px / (lens[0] * lens[1]));
    const Size n_points = Size(ws.start[view + 1] - ws.start[view]) * n_joints;
    float* const row[4] = {ws.points, ws.points + ws.points_row, ws.points + 2 * ws.points_row,
                           ws.points + 3 * ws.points_row};
    for (Size first = 0; first < n_points; first += kGroups * kLanesF) {
      const Size n_left = (n_points - first + kLanesF - 1) / kLanesF, n_groups = n_left < kGroups ? n_left : kGroups;
      Undistortion<LaneF, float> groups[kGroups];
      LaneFMask used[kGroups];
      LaneF certainty[kGroups];
      for (Size g = 0; g < n_groups; ++g) {
        const Size at = first + g * kLanesF, n_three = 3 * kLanesF;
        LaneF parts[3];
        if (n_points - at >= kLanesF) {
          for (Size i = 0; i < 3; ++i) load(parts[i], keypoints[view] + 3 * at + i * kLanesF);
        } else {
          float last[n_three] = {};  // What pads is never claimed to be seen.
          std::memcpy(last, keypoints[view] + 3 * at, sizeof(float) * 3 * (n_points - at));
          for (Size i = 0; i < 3; ++i) load(parts[i], last + i * kLanesF);
        }
        const LaneF u = picked(picked(parts[0], parts[1], kFirst[0]), parts[2], kThen[0]);
        const LaneF v = picked(picked(parts[0], parts[1], kFirst[1]), parts[2], kThen[1]);
        const LaneF score = picked(picked(parts[0], parts[1], kFirst[2]), parts[2], kThen[2]);
        const LaneFMask claimed = ~(score <= none);
        const LaneFMask finite = (u - u == none) & (v - v == none) & (score - score == none);
        const LaneFMask broken = claimed & ~finite;
        if (any(broken)) n_broken += Int(sum(broken ? one : none));
        used[g] = claimed & finite & (score >= score_min);
        // Detectors localise a point they are unsure of worse: deviation grows with the inverse of the score.
        certainty[g] = used[g] ? (score < one ? score : one) : one;
        groups[g].begin(lens, used[g] ? u : none + float(lens[2]), used[g] ? v : none + float(lens[3]));
      }
      // Where none moved by more than a thousandth, the next step would change a thousandth of a pixel.
      undistort_groups(lens, groups, n_groups, 1e-6f);
      for (Size g = 0; g < n_groups; ++g) {
        const Size at = first + g * kLanesF;
        const LaneF gx = groups[g].x, gy = groups[g].y;
        const LaneFMask inside = (gx < kTangentMax) & (gx > -kTangentMax) & (gy < kTangentMax) & (gy > -kTangentMax);
        const LaneFMask outside = used[g] & ~inside;
        if (any(outside)) n_broken += Int(sum(outside ? one : none));
        used[g] &= inside;
        store(row[0] + at, used[g] ? gx : none);
        store(row[1] + at, used[g] ? gy : none);
        store(row[2] + at, used[g] ? sure_var / (certainty[g] * certainty[g]) : one);
        store(row[3] + at, used[g] ? one : none);
      }
    }
    float* const to[4] = {ws.x, ws.y, ws.var, ws.seen};
    const LaneF rest[4] = {none, none, one, none};
    for (Int d = ws.start[view]; d < ws.start[view + 1]; ++d) {
      const Size at = Size(d - ws.start[view]) * n_joints;
      LaneF key[4];
      float* kept = ws.seen_keys + kSeenKeys * d;
      for (int i = 0; i < 4; ++i) {
        LaneF told[kJointGroups] = {};
        for (Size g = 0; g * kLanesF < n_padded; ++g) {
          load(told[g], row[i] + at + g * kLanesF);
          told[g] = own[g] ? told[g] : rest[i];
          float* lanes = to[i] + Size(d) * n_padded + g * kLanesF;
          if (g * kLanesF + kLanes < n_padded) store(lanes, told[g]);
          else store_half(lanes, told[g]);
        }
        key[i] = keys.of(told[0], told[1]);
        store(kept + i * kKeys, key[i]);
      }
      const LaneF x = key[0], y = key[1], var = key[2], seen = key[3];
      const LaneFMask on = seen != none;
      const LaneF far = LaneF{} + 1e30f;
      float* bound = ws.bounds + kBounds * d;
      const float reach = std::sqrt(cap * highest(on ? var : none));
      bound[kLeft] = lowest(on ? x : far) - reach;
      bound[kRight] = highest(on ? x : -far) + reach;
      bound[kTop] = lowest(on ? y : far) - reach;
      bound[kBottom] = highest(on ? y : -far) + reach;
      bound[kCount] = sum(seen);
      bound[kNoise] = sum(seen * var);
    }
  }
  return n_broken;
}

// ---- matching --------------------------------------------------------------------------------------------------------

// What is nearer than this is not in front of a camera, metres.
constexpr float kNearest = 0.05f;

// Where a person's keys may be, in arrays over people: middle and half of a box in the world, how fast any of them goes,
// and the largest variance of any. Their states beside it: place, velocity and covariance of the place.
inline void reach_out(const Workspace& ws, const Int* rows, Size n_rows) {
  const Size width = (n_rows + kLanesF - 1) / kLanesF * kLanesF;
  const Keys keys(ws);
  // Joints that nobody saw have no say.
  LaneF seen_by{};
  for (Int d = 0; d < ws.start[ws.n_views]; ++d) {
    LaneF seen;
    load(seen, ws.seen_keys + kSeenKeys * d + 3 * kKeys);
    seen_by += seen;
  }
  const LaneFMask used = seen_by != LaneF{};
  const LaneF far = LaneF{} + 1e30f;
  for (Size r = 0; r < n_rows; ++r) {
    const double* m = ws.mean + rows[r] * kState * ws.n_padded;
    const double* c = ws.cov + rows[r] * kStateCov * ws.n_padded;
    float* state = ws.state_keys + kStateKeys * r;
    for (int i = 0; i < kState; ++i) store(state + i * kKeys, keys.of(m + i * ws.n_padded, ws.n_padded));
    for (int i = 0; i < 6; ++i) store(state + (kState + i) * kKeys, keys.of(c + i * ws.n_padded, ws.n_padded));
    for (int i = 0; i < 3; ++i) {
      LaneF place, speed;
      load(place, state + i * kKeys);
      load(speed, state + (3 + i) * kKeys);
      const float low = lowest(used ? place : far), top = highest(used ? place : -far);
      ws.reach[i * width + r] = 0.5f * (low + top);
      ws.reach[(3 + i) * width + r] = 0.5f * (top - low);
      ws.reach[(6 + i) * width + r] = highest(used ? (speed < 0.0f ? -speed : speed) : LaneF{});
    }
    LaneF xx, yy, zz;
    load(xx, state + 6 * kKeys);
    load(yy, state + 8 * kKeys);
    load(zz, state + 11 * kKeys);
    ws.reach[9 * width + r] = highest(used ? xx + yy + zz : LaneF{});
  }
  for (Size i = 0; i < kReach; ++i)
    for (Size r = n_rows; r < width; ++r) ws.reach[i * width + r] = 0.0f;
}

// The part of a view's image in which people's keys, and all that the cap reaches, must lie, sixteen people at a time:
// none of it behind the camera; all of it so near to the camera, or partly behind it, that they may be anywhere. What is
// not a number is apart from nothing.
inline void look_for(const Workspace& ws, Size view, Size n_rows, float body_var) {
  const Size width = (n_rows + kLanesF - 1) / kLanesF * kLanesF;
  const double* camera = ws.camera_from_world + 12 * view;
  float p[12];
  for (int i = 0; i < 12; ++i) p[i] = float(camera[i]);
  const float dt = std::fabs(float(ws.dt_s[view])), cap = float(ws.joint_cost_cap);
  const LaneF var_max = LaneF{} + float(ws.prediction_var_max), infinite = LaneF{} + 1e30f;
  const auto size = [](const LaneF& a) { return a < 0.0f ? -a : a; };
  for (Size first = 0; first < width; first += kLanesF) {
    LaneF middle[3], half[3], var;
    for (int i = 0; i < 3; ++i) {
      LaneF speed;
      load(middle[i], ws.reach + i * width + first);
      load(half[i], ws.reach + (3 + i) * width + first);
      load(speed, ws.reach + (6 + i) * width + first);
      half[i] += dt * speed;
    }
    load(var, ws.reach + 9 * width + first);
    const LaneF depth = p[8] * middle[0] + p[9] * middle[1] + p[10] * middle[2] + p[11];
    const LaneF deep = std::fabs(p[8]) * half[0] + std::fabs(p[9]) * half[1] + std::fabs(p[10]) * half[2];
    const LaneF near = depth - deep;
    const LaneF inverse = 1.0f / depth, inverse_near = 1.0f / near;
    LaneF centre[2], spread[2];
    for (int row = 0; row < 2; ++row) {
      const float* q = p + 4 * row;
      centre[row] = (q[0] * middle[0] + q[1] * middle[1] + q[2] * middle[2] + q[3]) * inverse;
      spread[row] = LaneF{};
      for (int i = 0; i < 3; ++i) spread[row] += size(q[i] - centre[row] * p[8 + i]) * half[i];
      spread[row] *= inverse_near;
    }
    const LaneF u = size(centre[0]) + spread[0], v = size(centre[1]) + spread[1];
    LaneF vague = var * (1.0f + 0.5f * (u * u + v * v));
    vague = cap * (body_var + (vague < var_max ? vague : var_max));
    float each[kLanesF];
    store(each, vague);
    for (float& value : each) value = std::sqrt(value);
    LaneF blur;
    load(blur, each);
    blur *= inverse_near;
    const LaneFMask behind = depth + deep < kNearest, anywhere = ~behind & ~(near > 0.2f);
    for (int side = 0; side < 2; ++side) {
      const LaneF low = centre[side] - spread[side] - blur, high = centre[side] + spread[side] + blur;
      store(ws.windows + (2 * side) * width + first, behind ? infinite : anywhere ? -infinite : low);
      store(ws.windows + (2 * side + 1) * width + first, behind ? -infinite : anywhere ? infinite : high);
    }
  }
}

// Which of sixteen windows, in rows of left, right, top and bottom, are not apart from another; those of what is not a
// number are not.
FUSION_INLINE LaneFMask beside(const float* windows, Size width, const float* bound) {
  LaneF left, right, top, bottom;
  load(left, windows);
  load(right, windows + width);
  load(top, windows + 2 * width);
  load(bottom, windows + 3 * width);
  return ~((right < bound[kLeft]) | (left > bound[kRight]) | (bottom < bound[kTop]) | (top > bound[kBottom]));
}

// A person's keys in a view, kept in `to`: where they are seen, and the variances of body and of all that is unknown
// there. False where he is behind the camera.
FUSION_INLINE bool project(const float* state, const double* camera, double dt_s, const LaneF& own,
                           const LaneFMask& used, float var_max, float* to) {
  float p[12];
  for (int i = 0; i < 12; ++i) p[i] = float(camera[i]);
  const float dt = float(dt_s);
  LaneF s[kState], e[6];
#pragma GCC unroll 6
  for (int i = 0; i < kState; ++i) load(s[i], state + i * kKeys);
#pragma GCC unroll 6
  for (int i = 0; i < 6; ++i) load(e[i], state + (kState + i) * kKeys);
  const LaneF qx = s[0] + dt * s[3], qy = s[1] + dt * s[4], qz = s[2] + dt * s[5];
  LaneF depth = p[8] * qx + p[9] * qy + p[10] * qz + p[11];
  const bool in_front = sum(used ? depth - kNearest : LaneF{}) > 0.0f;
  depth = depth > kNearest ? depth : LaneF{} + kNearest;
  const LaneF inverse = 1.0f / depth;
  const LaneF u = (p[0] * qx + p[1] * qy + p[2] * qz + p[3]) * inverse;
  const LaneF v = (p[4] * qx + p[5] * qy + p[6] * qz + p[7]) * inverse;
  // Mean variance of the two image coordinates: rows of the Jacobian times covariance times itself.
  LaneF across{};
#pragma GCC unroll 2
  for (int i = 0; i < 2; ++i) {
    const LaneF w = i == 0 ? u : v;
    const LaneF jx = p[4 * i] - w * p[8], jy = p[4 * i + 1] - w * p[9], jz = p[4 * i + 2] - w * p[10];
    across += jx * (e[0] * jx + 2.0f * (e[1] * jy + e[3] * jz));
    across += jy * (e[2] * jy + 2.0f * e[4] * jz) + e[5] * jz * jz;
  }
  across *= 0.5f;
  const LaneF vague = across < var_max ? across : LaneF{} + var_max;
  store(to, u);
  store(to + kKeys, v);
  store(to + 2 * kKeys, own * inverse * inverse);
  store(to + 3 * kKeys, (own + vague) * inverse * inverse);
  return in_front;
}

// Mean capped squared distance, in standard deviations, from predicted people to detections, for every pair that may be
// below `gate`; tell(track, detection, cost) is called in order of views, within them of detections and people.
//
// A person's keys are moved to the instant of the view (dt_s before the state's), projected, and compared. Uncertain
// joints count less, but a logarithm charges for the uncertainty, so a vague track cannot take what a certain one
// explains as well. No prediction may be vaguer than prediction_var_max (m^2): whoever was out of sight for long does
// not reach across the room for a stranger's detection.
//
// Most people are nowhere near most detections of a camera. Where the windows of the two are apart, every joint would
// cost the cap, which no gate lets through.
template <class Begin, class Tell, class End>
FUSION_INLINE void compare(const Workspace& ws, const Int* rows, Size n_rows, double gate, Begin begin, Tell tell,
                           End end) {
  const Size width = (n_rows + kLanesF - 1) / kLanesF * kLanesF;
  reach_out(ws, rows, n_rows);
  float body[kKeys], valid[kKeys], body_most = 0.0f;
  for (Size k = 0; k < kKeys; ++k) {
    valid[k] = ws.keys[k] < 0 ? 0.0f : 1.0f;
    body[k] = ws.keys[k] < 0 ? 0.0f : float(ws.body_var[ws.keys[k]]);
    body_most = body[k] > body_most ? body[k] : body_most;
  }
  LaneF own, is_key;
  load(own, body);
  load(is_key, valid);
  const LaneFMask used = is_key != LaneF{};
  const float cap = float(ws.joint_cost_cap), var_max = float(ws.prediction_var_max), most = float(gate);
  for (Size view = 0; view < ws.n_views; ++view) {
    begin(view);
    if (ws.start[view] == ws.start[view + 1]) continue;
    look_for(ws, view, n_rows, body_most);
    // Of all people, those who may be anywhere in what the view shows; mostly few.
    float all[4] = {1e30f, -1e30f, 1e30f, -1e30f};
    for (Int d = ws.start[view]; d < ws.start[view + 1]; ++d)
      for (int side = 0; side < 4; ++side) {
        const float edge = ws.bounds[kBounds * d + side];
        all[side] = (side % 2 ? edge > all[side] : edge < all[side]) ? edge : all[side];
      }
    const double* camera = ws.camera_from_world + 12 * view;
    Size n_shown = 0;
    for (Size first = 0; first < width; first += kLanesF) {
      const LaneFMask near = beside(ws.windows + first, width, all);
      if (!any(near)) continue;
      int flags[kLanesF];
      store(flags, near);
      const Size n_here = n_rows - first < kLanesF ? n_rows - first : kLanesF;
      for (Size k = 0; k < n_here; ++k) {
        if (!flags[k]) continue;
        const Size track = first + k;
        float* kept = ws.projected + 4 * kKeys * n_shown;
        if (!project(ws.state_keys + kStateKeys * track, camera, ws.dt_s[view], own, used, var_max, kept)) continue;
        // What is written lies before what is still to be read.
        for (Size side = 0; side < 4; ++side) ws.windows[side * width + n_shown] = ws.windows[side * width + track];
        ws.shown[n_shown++] = Int(track);
      }
    }
    for (Int d = ws.start[view]; d < ws.start[view + 1]; ++d) {
      const float* bound = ws.bounds + kBounds * d;
      if (!(bound[kCount] >= float(ws.joints_min))) continue;
      // Whoever may be near is listed, then compared, then judged: a loop that has to guess at branches is slow.
      Size n_near = 0;
      for (Size first = 0; first < n_shown; first += kLanesF) {
        int flags[kLanesF];
        store(flags, beside(ws.windows + first, width, bound));
        const Size n_here = n_shown - first < kLanesF ? n_shown - first : kLanesF;
        for (Size k = 0; k < n_here; ++k) {
          ws.near[n_near] = Int(first + k);
          n_near += flags[k] != 0;
        }
      }
      const float *keys = ws.seen_keys + kSeenKeys * d, count = bound[kCount];
      LaneF px, py, noise, seen;
      load(px, keys);
      load(py, keys + kKeys);
      load(noise, keys + 2 * kKeys);
      load(seen, keys + 3 * kKeys);
      for (Size i = 0; i < n_near; ++i) {
        const float* kept = ws.projected + 4 * kKeys * ws.near[i];
        LaneF u, v, spread;
        load(u, kept);
        load(v, kept + kKeys);
        load(spread, kept + 3 * kKeys);
        const LaneF du = px - u, dv = py - v;
        const LaneF distance = (du * du + dv * dv) / (noise + spread);
        ws.fits[i] = sum(seen * (distance < cap ? distance : LaneF{} + cap));
      }
      for (Size i = 0; i < n_near; ++i) {
        // False for what is not a number, which would send the assignment searching for ever.
        if (!(ws.fits[i] < most * count)) continue;
        const float* kept = ws.projected + 4 * kKeys * ws.near[i];
        LaneF body, spread;
        load(body, kept + 2 * kKeys);
        load(spread, kept + 3 * kKeys);
        const float wide = bound[kNoise] + sum(seen * spread), sharp = bound[kNoise] + sum(seen * body);
        const double vaguer = wide > sharp ? double(wide) / double(sharp) : 1.0;
        const double cost = double(ws.fits[i] / count) + std::log(vaguer);
        if (cost < gate) tell(Size(ws.shown[ws.near[i]]), d, cost);
      }
    }
    end(view);
  }
}

// All of them, for tests: out (n_rows, n_detections) holds `never` beforehand.
inline void costs(const Workspace& ws, const Int* rows, Size n_rows, double gate, double* out) {
  const Size n = ws.start[ws.n_views];
  compare(ws, rows, n_rows, gate, [](Size) {}, [&](Size track, Int d, double cost) { out[track * n + d] = cost; },
          [](Size) {});
}

// Optimal assignment of n rows to m columns, n <= m, by shortest augmenting paths; cost (n, m), column_of (n).
// Source: Jonker and Volgenant (1987), in the form with potentials. A view has at most kSide detections, so n is at most
// that. price (2 (m + 1)) and index (3 (m + 1)) are scratch.
inline void solve_assignment(const double* cost, Size n, Size m, Int* column_of, double* price, Int* index) {
  double row_price[kSide + 1] = {};
  double *column_price = price, *least = price + m + 1;
  Int *row_of = index, *previous = index + m + 1, *used = index + 2 * (m + 1);
  for (Size j = 0; j <= m; ++j) {
    column_price[j] = 0.0;
    row_of[j] = previous[j] = 0;
  }
  for (Size i = 1; i <= n; ++i) {
    row_of[0] = Int(i);
    Size column = 0;
    for (Size j = 0; j <= m; ++j) {
      least[j] = 1e300;
      used[j] = 0;
    }
    do {
      used[column] = 1;
      const Size row = Size(row_of[column]);
      double delta = 1e300;
      Size following = 0;
      for (Size j = 1; j <= m; ++j) {
        if (used[j]) continue;
        const double reduced = cost[(row - 1) * m + j - 1] - row_price[row] - column_price[j];
        if (reduced < least[j]) {
          least[j] = reduced;
          previous[j] = Int(column);
        }
        if (least[j] < delta) {
          delta = least[j];
          following = j;
        }
      }
      for (Size j = 0; j <= m; ++j) {
        if (used[j]) {
          row_price[row_of[j]] += delta;
          column_price[j] -= delta;
        } else {
          least[j] -= delta;
        }
      }
      column = following;
    } while (row_of[column] != 0);
    while (column != 0) {
      const Size before = Size(previous[column]);
      row_of[column] = row_of[before];
      column = before;
    }
  }
  for (Size j = 1; j <= m; ++j)
    if (row_of[j] > 0) column_of[row_of[j] - 1] = Int(j - 1);
}

// Cost of the difference of two looks: the cosine distance of unit vectors; none where one is missing (all zero).
FUSION_INLINE double look_cost(const Workspace& ws, Int row, Int detection) {
  const double* a = ws.looks + row * ws.appearance_dim;
  const double* b = ws.appearance + detection * ws.appearance_dim;
  double dot = 0.0, known_a = 0.0, known_b = 0.0;
  for (Size i = 0; i < ws.appearance_dim; ++i) {
    dot += a[i] * b[i];
    known_a += a[i] * a[i];
    known_b += b[i] * b[i];
  }
  return known_a > 0.0 && known_b > 0.0 ? (1.0 - dot) / ws.appearance_scale : 0.0;
}

// Give every camera's detections to tracks, at least total cost, none above the gate.
//
// Clipping the costs at the gate and dropping pairs that reach it equals an assignment in which everybody may stay
// alone at the price of the gate; so whoever shares no pair with others, through however many steps, is assigned apart.
// A detection left over that fits, below double_gate, a track which got a better one in the same view is that person
// seen twice: it is set aside, for it must not give birth to a second person.
//
// Writes track_of (n_detections): track, -1 free, -2 set aside; detection_of (n_rows, n_views): detection or -1.
inline void match(const Workspace& ws, const Int* rows, Size n_rows) {
  const Int n_detections = ws.start[ws.n_views];
  for (Int d = 0; d < n_detections; ++d) ws.track_of[d] = -1;
  for (Size cell = 0; cell < n_rows * ws.n_views; ++cell) ws.detection_of[cell] = -1;
  if (n_rows == 0) return;
  // Leaders of the groups of those who share pairs: tracks first, then the view's detections.
  Int* leader = ws.list;
  Int *group_tracks = leader + ws.capacity + kSide, *group_detections = group_tracks + ws.capacity;
  Int *place_of = group_detections + kSide, *column_of = place_of + ws.capacity + kSide;
  Int* index = column_of + kSide;
  const auto lead = [&](Int member) {
    while (leader[member] != member) member = leader[member] = leader[leader[member]];
    return member;
  };
  Size n_pairs = 0;
  for (Size t = 0; t < n_rows; ++t) leader[t] = Int(t);
  const auto begin = [&](Size) { n_pairs = 0; };
  const auto tell = [&](Size track, Int d, double cost) {
    if (ws.appearance_dim) cost += look_cost(ws, rows[track], d);
    if (!(cost < ws.match_gate)) return;
    ws.pair_track[n_pairs] = Int(track);
    ws.pair_detection[n_pairs] = d;
    ws.pair_cost[n_pairs++] = cost;
  };
  const auto end = [&](Size view) {
    const Int first = ws.start[view];
    const Int n_here = ws.start[view + 1] - first, offset = Int(n_rows) - first;
    for (Int k = 0; k < n_here; ++k) leader[n_rows + k] = Int(n_rows) + k;
    for (Size p = 0; p < n_pairs; ++p) {
      const Int a = lead(ws.pair_track[p]), b = lead(ws.pair_detection[p] + offset);
      leader[a < b ? b : a] = a < b ? a : b;
    }
    for (Size q = 0; q < n_pairs; ++q) {
      // A group's leader is its first track; each is solved where the first of its pairs comes up.
      const Int group = lead(ws.pair_track[q]);
      if (ws.track_of[ws.pair_detection[q]] == -3) continue;
      Size n_tracks = 0, n_found = 0, n_own = 0;
      for (Size p = q; p < n_pairs; ++p) {
        if (lead(ws.pair_track[p]) != group) continue;
        ++n_own;
        const Int track = ws.pair_track[p], d = ws.pair_detection[p];
        if (ws.track_of[d] != -3) {
          ws.track_of[d] = -3;  // In a group that is being solved.
          place_of[ws.capacity + Size(d - first)] = Int(n_found);
          group_detections[n_found++] = d;
        }
        Size at = 0;
        while (at < n_tracks && group_tracks[at] != track) ++at;
        if (at == n_tracks) {
          place_of[track] = Int(n_tracks);
          group_tracks[n_tracks++] = track;
        }
      }
      if (n_own == 1) {
        ws.detection_of[Size(group_tracks[0]) * ws.n_views + view] = group_detections[0];
        continue;
      }
      const bool by_track = n_tracks <= n_found;
      const Size n = by_track ? n_tracks : n_found, m = by_track ? n_found : n_tracks;
      for (Size cell = 0; cell < n * m; ++cell) ws.dense[cell] = ws.match_gate;
      for (Size p = q; p < n_pairs; ++p) {
        if (lead(ws.pair_track[p]) != group) continue;
        const Size t = Size(place_of[ws.pair_track[p]]);
        const Size d = Size(place_of[ws.capacity + Size(ws.pair_detection[p] - first)]);
        ws.dense[by_track ? t * m + d : d * m + t] = ws.pair_cost[p];
      }
      solve_assignment(ws.dense, n, m, column_of, ws.dense + n * m, index);
      for (Size row = 0; row < n; ++row) {
        const Size column = Size(column_of[row]);
        if (!(ws.dense[row * m + column] < ws.match_gate)) continue;
        const Int track = group_tracks[by_track ? row : column], d = group_detections[by_track ? column : row];
        ws.detection_of[Size(track) * ws.n_views + view] = d;
      }
    }
    for (Int d = first; d < ws.start[view + 1]; ++d) ws.track_of[d] = -1;
    for (Size p = 0; p < n_pairs; ++p)
      if (ws.detection_of[Size(ws.pair_track[p]) * ws.n_views + view] == ws.pair_detection[p])
        ws.track_of[ws.pair_detection[p]] = ws.pair_track[p];
    for (Size p = 0; p < n_pairs; ++p) {
      const bool got = ws.detection_of[Size(ws.pair_track[p]) * ws.n_views + view] >= 0;
      if (got && ws.track_of[ws.pair_detection[p]] == -1 && ws.pair_cost[p] < ws.double_gate)
        ws.track_of[ws.pair_detection[p]] = -2;
      leader[ws.pair_track[p]] = ws.pair_track[p];
    }
  };
  compare(ws, rows, n_rows, ws.match_gate, begin, tell, end);
}

// ---- the filter of every joint ---------------------------------------------------------------------------------------

// State of capacity people: mean (capacity, 6, n_padded), cov (capacity, 21, n_padded), joints in the lanes.

// Carry joints on by dt_s: constant velocity that fades (people stop), driven by white acceleration of spectral density
// acceleration (n_padded), m^2/s^3. Source: Bar-Shalom, Li, Kirubarajan (2001), section 6.2.2.
inline void predict(const Workspace& ws, const Int* rows, Size n_rows, double dt_s) {
  const Size n_padded = ws.n_padded;
  const double fade_s = ws.fade_s;
  const double fade = std::exp(-dt_s / fade_s);
  const double reach = fade_s * (1.0 - fade);  // How far one unit of velocity still goes.
  for (Size r = 0; r < n_rows; ++r) {
    double* m = ws.mean + rows[r] * kState * n_padded;
    double* c = ws.cov + rows[r] * kStateCov * n_padded;
    for (Size first = 0; first < n_padded; first += kLanes) {
      Symmetric<kState> s;
#pragma GCC unroll 21
      for (int i = 0; i < kStateCov; ++i) load(s.v[i], c + i * n_padded + first);
      Lane q;
      load(q, ws.acceleration + first);
      const Lane q_pp = q * (dt_s * dt_s * dt_s / 3.0), q_pv = q * (dt_s * dt_s / 2.0), q_vv = q * dt_s;
#pragma GCC unroll 3
      for (int i = 0; i < 3; ++i) {
        Lane p, v;
        load(p, m + i * n_padded + first);
        load(v, m + (3 + i) * n_padded + first);
        store(m + i * n_padded + first, p + reach * v);
        store(m + (3 + i) * n_padded + first, fade * v);
      }
      Symmetric<kState> out;
#pragma GCC unroll 3
      for (int i = 0; i < 3; ++i)
#pragma GCC unroll 3
        for (int j = 0; j < 3; ++j) {
          out(3 + i, j) = fade * (s(3 + i, j) + reach * s(3 + i, 3 + j));
          if (j > i) continue;
          out(i, j) = s(i, j) + reach * (s(3 + i, j) + s(3 + j, i)) + (reach * reach) * s(3 + i, 3 + j);
          out(3 + i, 3 + j) = (fade * fade) * s(3 + i, 3 + j);
        }
#pragma GCC unroll 3
      for (int i = 0; i < 3; ++i) {
        out(i, i) += q_pp;
        out(3 + i, i) += q_pv;
        // The fading bounds it: nobody gets faster and faster while unseen, the variance tends to q fade_s / 2.
        out(3 + i, 3 + i) += q_vv;
      }
#pragma GCC unroll 21
      for (int i = 0; i < kStateCov; ++i) store(c + i * n_padded + first, out.v[i]);
    }
  }
}

// The body's axis: mean place of the joints, weighted by how well each is known, and the variance of either coordinate:
// joints that are vague because one camera saw them are off together, so their mean is no better than they are.
inline void find_axis(const double* m, const double* c, Size n_padded, const double* axis_precision,
                      double& x_out, double& y_out, double& var_out) {
  double sum_w = 1e-12, sum_x = 0.0, sum_y = 0.0, sum_var = 0.0;
  for (Size j = 0; j < n_padded; ++j) {
    if (axis_precision[j] == 0.0) continue;
    const double w = 1.0 / (c[j] + c[2 * n_padded + j] + 2.0 / axis_precision[j]);
    sum_w += w;
    sum_x += w * m[j];
    sum_y += w * m[n_padded + j];
    sum_var += w * 0.5 * (c[j] + c[2 * n_padded + j]);
  }
  x_out = sum_x / sum_w;
  y_out = sum_y / sum_w;
  var_out = sum_var / sum_w;
}

// The views that a person was matched in: which, and their detections.
struct Matched {
  const Int *views, *detections;
  Size n;
};

FUSION_INLINE Matched matched_views(const Workspace& ws, const Int* detection_of) {
  Size n = 0;
  Int *views = ws.matched, *detections = ws.matched + ws.n_views;
  for (Size view = 0; view < ws.n_views; ++view) {
    if (detection_of[view] < 0) continue;
    views[n] = Int(view);
    detections[n++] = detection_of[view];
  }
  return {views, detections, n};
}

// Eight joints of one person as one view sees them, in metres at the body: what the view is off by in the two directions
// of its image where the joint is predicted, and the rows by which that changes as the joint moves. Distance times
// depth is linear in the joint's place, so neither changes while the place is searched for.
struct Sight {
  Lane u[3], v[3], off_u, off_v, precision;
};
static_assert(sizeof(Sight) == kSight * sizeof(double), "a sight's lanes");

// Eight neighbouring joints of one person.
struct OwnLanes {
  const Workspace& ws;
  double *m, *c, *heights, *held;
  Matched matched;
  Size first;
  double axis_x, axis_y, axis_var;
  double *sums, *counts;  // Of the views, or null.
  bool tally;

  FUSION_INLINE void state(Lane& lane, int i) const { load(lane, m + i * ws.n_padded + first); }
  FUSION_INLINE void cov(Lane& lane, int i) const { load(lane, c + i * ws.n_padded + first); }
  FUSION_INLINE void height(Lane& lane) const { load(lane, heights + first); }
  FUSION_INLINE void table(Lane& lane, const double* by_joint) const { load(lane, by_joint + first); }
  FUSION_INLINE Size n_views() const { return matched.n; }
  FUSION_INLINE Size view(Size k) const { return Size(matched.views[k]); }
  FUSION_INLINE void measured(Lane& lane, const float* detections, Size k) const {
    load(lane, detections + Size(matched.detections[k]) * ws.n_padded + first);
  }
  FUSION_INLINE void axis(Lane& x, Lane& y, Lane& var) const {
    fill(x, axis_x);
    fill(y, axis_y);
    fill(var, axis_var);
  }
  FUSION_INLINE void residual(Size k, const Lane& distance_sq, const Lane& seen) const {
    if (!sums) return;
    sums[view(k)] += sum(distance_sq);
    counts[view(k)] += sum(seen);
  }
  FUSION_INLINE bool tallied() const { return tally; }
  FUSION_INLINE void add_noise(const Lane& total, const Lane& count) const {
    Lane so_far, n_so_far;
    load(so_far, ws.noise_total + first);
    load(n_so_far, ws.noise_count + first);
    store(ws.noise_total + first, so_far + total);
    store(ws.noise_count + first, n_so_far + count);
  }
  FUSION_INLINE void set_state(const Lane& lane, int i) const { store(m + i * ws.n_padded + first, lane); }
  FUSION_INLINE void set_cov(const Lane& lane, int i) const { store(c + i * ws.n_padded + first, lane); }
  FUSION_INLINE void set_height(const Lane& lane) const { store(heights + first, lane); }
  FUSION_INLINE void set_support(const Lane& lane) const { store(held + first, lane); }
};

// The same joint of up to eight people: what a layout has beyond whole groups of eight would fill a lane or two of a
// group of its own. Views are those in which any of them was matched; who was not did not see there.
struct SharedLanes {
  const Workspace& ws;
  double *m[kLanes], *c[kLanes], *heights[kLanes], *held[kLanes];
  const Int* views;        // (n)
  const Int* detection_of;  // (n, kLanes), -1 for none
  Size n, joint, width;
  double axes[3][kLanes];
  double tallies[kLanes];
  bool any_tally;

  FUSION_INLINE void state(Lane& lane, int i) const { collect(lane, m, i * ws.n_padded + joint); }
  FUSION_INLINE void cov(Lane& lane, int i) const { collect(lane, c, i * ws.n_padded + joint); }
  FUSION_INLINE void height(Lane& lane) const { collect(lane, heights, joint); }
  FUSION_INLINE void table(Lane& lane, const double* by_joint) const { fill(lane, by_joint[joint]); }
  FUSION_INLINE Size n_views() const { return n; }
  FUSION_INLINE Size view(Size k) const { return Size(views[k]); }
  FUSION_INLINE void measured(Lane& lane, const float* of, Size k) const {
    const Int* d = detection_of + k * kLanes;
    lane = Lane{value(of, d[0]), value(of, d[1]), value(of, d[2]), value(of, d[3]),
                value(of, d[4]), value(of, d[5]), value(of, d[6]), value(of, d[7])};
  }
  FUSION_INLINE double value(const float* of, Int detection) const {
    return detection < 0 ? 0.0 : double(of[Size(detection) * ws.n_padded + joint]);
  }
  FUSION_INLINE void axis(Lane& x, Lane& y, Lane& var) const {
    load(x, axes[0]);
    load(y, axes[1]);
    load(var, axes[2]);
  }
  FUSION_INLINE void residual(Size, const Lane&, const Lane&) const {}
  FUSION_INLINE bool tallied() const { return any_tally; }
  FUSION_INLINE void add_noise(const Lane& total, const Lane& count) const {
    Lane counted;
    load(counted, tallies);
    ws.noise_total[joint] += sum(counted * total);
    ws.noise_count[joint] += sum(counted * count);
  }
  FUSION_INLINE void set_state(const Lane& lane, int i) const { spread(lane, m, i * ws.n_padded + joint, width); }
  FUSION_INLINE void set_cov(const Lane& lane, int i) const { spread(lane, c, i * ws.n_padded + joint, width); }
  FUSION_INLINE void set_height(const Lane& lane) const { spread(lane, heights, joint, width); }
  FUSION_INLINE void set_support(const Lane& lane) const { spread(lane, held, joint, width); }
};

// Most probable state of every person's joints, given the prediction and all that was matched. Student-t measurement
// noise by reweighting, so that a view that saw something else (an occluder's joint, left for right) is outvoted.
//
// Every view looks at its own instant. Together the views of a joint say where it was at their mean instant, weighted by
// what each knows: before and after it, the predicted velocity does. That leaves a measurement of a place, so the search
// goes in three dimensions, and the velocity follows from what it has in common with the place.
template <class Lanes>
inline void update_joints(const Workspace& ws, const Lanes& lanes, const Measurement& how) {
  const Size n_views = lanes.n_views();
  Sight* sights = reinterpret_cast<Sight*>(ws.sights);
  Lane state[kState], body, unsteady, noise;
  Symmetric<kState> s;
#pragma GCC unroll 6
  for (int i = 0; i < kState; ++i) lanes.state(state[i], i);
#pragma GCC unroll 21
  for (int i = 0; i < kStateCov; ++i) lanes.cov(s.v[i], i);
  lanes.table(body, ws.body_var);
  lanes.table(unsteady, ws.acceleration);
  lanes.table(noise, ws.noise);
  body *= noise;
  Lane known{}, moment{};
  const Lane none{};
  for (Size k = 0; k < n_views; ++k) {
    const double* p = ws.camera_from_world + 12 * lanes.view(k);
    const double dt = ws.dt_s[lanes.view(k)];
    Lane zx, zy, var, seen;
    lanes.measured(zx, ws.x, k);
    lanes.measured(zy, ws.y, k);
    lanes.measured(var, ws.var, k);
    lanes.measured(seen, ws.seen, k);
    const Lane qx = state[0] + dt * state[3], qy = state[1] + dt * state[4], qz = state[2] + dt * state[5];
    const Lane depth = p[8] * qx + p[9] * qy + p[10] * qz + p[11];
    Sight& sight = sights[k];
#pragma GCC unroll 3
    for (int i = 0; i < 3; ++i) {
      sight.u[i] = p[i] - zx * p[8 + i];
      sight.v[i] = p[4 + i] - zy * p[8 + i];
    }
    sight.off_u = zx * depth - (p[0] * qx + p[1] * qy + p[2] * qz + p[3]);
    sight.off_v = zy * depth - (p[4] * qx + p[5] * qy + p[6] * qz + p[7]);
    // A detector's joint is not quite the same point of the body from every side: body_var, metres at the body. Nor did
    // it move evenly since that view looked.
    const Lane precision = seen / (var * noise * (depth * depth) + body + unsteady * (std::fabs(dt * dt * dt) / 3.0));
    sight.precision = depth > 0.05 ? precision : none;
    known += sight.precision;
    moment += dt * sight.precision;
  }
  const Lane instant = known > 0.0 ? moment / known : none;
  // Covariance of the place at that instant, and of the state with it.
  Lane with[kState][3];
#pragma GCC unroll 6
  for (int i = 0; i < kState; ++i)
#pragma GCC unroll 3
    for (int j = 0; j < 3; ++j) with[i][j] = s(i, j) + instant * s(i, 3 + j);
  Symmetric<3> before, prior;
#pragma GCC unroll 3
  for (int i = 0; i < 3; ++i)
#pragma GCC unroll 3
    for (int j = 0; j <= i; ++j) before(i, j) = with[i][j] + instant * with[3 + i][j];
  invert(before, prior);
  Lane on_floor, near_axis, near_height, height, axis_x, axis_y, axis_var;
  lanes.axis(axis_x, axis_y, axis_var);
  lanes.table(on_floor, ws.floor_precision);
  lanes.table(near_axis, ws.axis_precision);
  lanes.table(near_height, ws.height_precision);
  lanes.height(height);
  near_axis *= how.share / (1.0 + axis_var * near_axis);
  near_height *= how.share;
  const double freedom = ws.freedom;
  Lane step[3] = {}, weight_sum{};
  Symmetric<3> after = before;
  for (Int turn = 0; turn < how.n_steps; ++turn) {
    const bool plain = turn < how.n_plain, last = turn == how.n_steps - 1;
    if (turn > 0 && how.n_plain > 0) {
      // A birth's first guess may be decimetres off, and with it the depth that turns pixels into metres.
      for (Size k = 0; k < n_views; ++k) {
        const double* p = ws.camera_from_world + 12 * lanes.view(k);
        const double dt = ws.dt_s[lanes.view(k)];
            Lane var, seen;
        lanes.measured(var, ws.var, k);
        lanes.measured(seen, ws.seen, k);
        Lane depth = Lane{} + p[11];
#pragma GCC unroll 3
        for (int i = 0; i < 3; ++i) depth += p[8 + i] * (state[i] + step[i] + dt * state[3 + i]);
        const Lane uneven = unsteady * (std::fabs(dt * dt * dt) / 3.0);
        const Lane precision = seen / (var * noise * (depth * depth) + body + uneven);
        sights[k].precision = depth > 0.05 ? precision : none;
      }
    }
    Symmetric<3> information = prior;
    Lane rhs[3] = {};
    for (Size k = 0; k < n_views; ++k) {
      const Sight& sight = sights[k];
      const Lane off_u = sight.off_u - (sight.u[0] * step[0] + sight.u[1] * step[1] + sight.u[2] * step[2]);
      const Lane off_v = sight.off_v - (sight.v[0] * step[0] + sight.v[1] * step[1] + sight.v[2] * step[2]);
      const Lane distance_sq = (off_u * off_u + off_v * off_v) * sight.precision;
      const Lane share = plain ? Lane{} + 1.0 : (freedom + 2.0) / (freedom + distance_sq);
      const Lane w = share * sight.precision;
      if (last) {
        weight_sum += sight.precision > 0.0 ? share : none;
        lanes.residual(k, distance_sq < 25.0 ? distance_sq : none + 25.0, sight.precision > 0.0 ? none + 1.0 : none);
      }
#pragma GCC unroll 3
      for (int i = 0; i < 3; ++i) {
        const Lane wu = w * sight.u[i], wv = w * sight.v[i];
        rhs[i] += wu * sight.off_u + wv * sight.off_v;
#pragma GCC unroll 3
        for (int j = 0; j <= i; ++j) information(i, j) += wu * sight.u[j] + wv * sight.v[j];
      }
    }
    // A point known to touch the floor, and what is known of joints from the body they belong to.
    information(2, 2) += on_floor + near_height;
    rhs[2] += near_height * (height - state[2]) - on_floor * state[2];
    information(0, 0) += near_axis;
    information(1, 1) += near_axis;
    rhs[0] += near_axis * (axis_x - state[0]);
    rhs[1] += near_axis * (axis_y - state[1]);
    invert(information, after);
#pragma GCC unroll 3
    for (int i = 0; i < 3; ++i) step[i] = after(i, 0) * rhs[0] + after(i, 1) * rhs[1] + after(i, 2) * rhs[2];
  }
  if (lanes.tallied()) {
    // How much noisier than claimed: the expectation step of an estimate of variance. What a view is off from the joint
    // as all views place it, and what the joint is uncertain across the line of sight, add up to the variance.
    Lane total{}, count{};
    for (Size k = 0; k < n_views; ++k) {
      const Sight& sight = sights[k];
      Lane off_u = sight.off_u, off_v = sight.off_v, across{};
#pragma GCC unroll 3
      for (int i = 0; i < 3; ++i) {
        off_u -= sight.u[i] * step[i];
        off_v -= sight.v[i] * step[i];
#pragma GCC unroll 3
        for (int j = 0; j < 3; ++j) across += after(i, j) * (sight.u[i] * sight.u[j] + sight.v[i] * sight.v[j]);
      }
      const Lane distance_sq = (off_u * off_u + off_v * off_v) * sight.precision;
      total += (freedom + 2.0) / (freedom + distance_sq) * (distance_sq + across * sight.precision);
      count += sight.precision > 0.0 ? none + 2.0 : none;
    }
    lanes.add_noise(ws.noise_share * noise * total, count);
  }
  // What the place at that instant has taught about the state now.
  Lane gain[kState][3], taught[kState][3];
  Symmetric<3> less;
#pragma GCC unroll 6
  for (int i = 0; i < 6; ++i) less.v[i] = before.v[i] - after.v[i];
#pragma GCC unroll 6
  for (int i = 0; i < kState; ++i)
#pragma GCC unroll 3
    for (int j = 0; j < 3; ++j)
      gain[i][j] = with[i][0] * prior(0, j) + with[i][1] * prior(1, j) + with[i][2] * prior(2, j);
#pragma GCC unroll 6
  for (int i = 0; i < kState; ++i) {
    const Lane now = state[i] + gain[i][0] * step[0] + gain[i][1] * step[1] + gain[i][2] * step[2];
    if (i == 2) {
      // A height is learnt while it is certain: within 10 cm, and two views or so behind it.
      const LaneMask certain = (after(2, 2) < 0.01) & (weight_sum > 1.5);
      height += (certain ? none + how.learning : none) * (now - height);
    }
    lanes.set_state(now, i);
#pragma GCC unroll 3
    for (int j = 0; j < 3; ++j)
      taught[i][j] = gain[i][0] * less(0, j) + gain[i][1] * less(1, j) + gain[i][2] * less(2, j);
  }
#pragma GCC unroll 6
  for (int i = 0; i < kState; ++i)
#pragma GCC unroll 6
    for (int j = 0; j <= i; ++j)
      lanes.set_cov(s(i, j) - (taught[i][0] * gain[j][0] + taught[i][1] * gain[j][1] + taught[i][2] * gain[j][2]),
                    Symmetric<kState>::at(i, j));
  lanes.set_support(weight_sum);
  lanes.set_height(height);
}

// Bones do not stretch: each limb's length, learnt while both its joints are well seen, is a measurement of the distance
// between them, by one step of an extended Kalman filter. It moves the joint that is less certain, so a hidden hand stays
// within reach of its elbow. Limbs of one person share joints and follow each other; eight people walk side by side.
//
// rows (n_rows); support (n_rows, n_padded).
inline void hold_limbs(const Workspace& ws, const Int* rows, Size n_rows, const double* support, double learning) {
  const Size n_padded = ws.n_padded, n_limbs = ws.n_limbs;
  const double sd_m = ws.limb_sd_m, own_var = ws.limb_own_var;
  for (Size first = 0; first < n_rows; first += kLanes) {
    const Size width = n_rows - first < kLanes ? n_rows - first : kLanes;
    // A row of joints of each of eight people: state, covariance, support.
    double* from[kState + kStateCov + 1][kLanes];
    for (Size k = 0; k < kLanes; ++k) {
      const Size i = first + (k < width ? k : 0);
      for (int part = 0; part < kState; ++part) from[part][k] = ws.mean + (rows[i] * kState + part) * n_padded;
      for (int part = 0; part < kStateCov; ++part)
        from[kState + part][k] = ws.cov + (rows[i] * kStateCov + part) * n_padded;
      from[kState + kStateCov][k] = const_cast<double*>(support) + i * n_padded;
    }
    // Joints side by side become people side by side, and back: a limb reads and writes 54 numbers of each person.
    for (int part = 0; part < kState + kStateCov + 1; ++part)
      for (Size joint = 0; joint < n_padded; joint += kLanes) {
        Lane block[kLanes];
        for (Size k = 0; k < kLanes; ++k) load(block[k], from[part][k] + joint);
        transpose(block);
        for (Size k = 0; k < kLanes; ++k) store(ws.turned + (part * n_padded + joint + k) * kLanes, block[k]);
      }
    for (Size limb = 0; limb < n_limbs; ++limb) {
      Lane state[2][kState], held[2], usual{};
      Symmetric<kState> s[2];
      for (int end = 0; end < 2; ++end) {
        const double* at = ws.turned + ws.limbs[2 * limb + end] * kLanes;
#pragma GCC unroll 6
        for (int i = 0; i < kState; ++i) load(state[end][i], at + i * n_padded * kLanes);
#pragma GCC unroll 21
        for (int i = 0; i < kStateCov; ++i) load(s[end].v[i], at + (kState + i) * n_padded * kLanes);
        load(held[end], at + (kState + kStateCov) * n_padded * kLanes);
      }
      for (Size k = 0; k < width; ++k) usual[k] = ws.limb_lengths_m[rows[first + k] * n_limbs + limb];
      const Lane n[3] = {state[1][0] - state[0][0], state[1][1] - state[0][1], state[1][2] - state[0][2]};
      const Lane length = root(n[0] * n[0] + n[1] * n[1] + n[2] * n[2]);
      const LaneMask long_enough = length > 0.01;  // Else there is no direction to push in.
      const Lane shortening = long_enough ? 1.0 / length : Lane{};
      // Covariance of each joint's whole state with its position along the limb, then that position's own variance.
      Lane along[2][kState], var[2];
      for (int end = 0; end < 2; ++end) {
#pragma GCC unroll 6
        for (int row = 0; row < kState; ++row)
          along[end][row] = (s[end](row, 0) * n[0] + s[end](row, 1) * n[1] + s[end](row, 2) * n[2]) * shortening;
        var[end] = (along[end][0] * n[0] + along[end][1] * n[1] + along[end][2] * n[2]) * shortening;
      }
      const LaneMask certain = (held[0] > 1.5) & (held[1] > 1.5) & (var[0] + var[1] < 0.005) & long_enough;
      usual += (certain ? Lane{} + learning : Lane{}) * (length - usual);
      // Joints of one body that are both vague are off together (one camera does not tell how far away somebody is), and
      // a limb says nothing of that: only what is vaguer about one of them than about the other, and some centimetres.
      const Lane lesser = var[0] < var[1] ? var[0] : var[1];
      const Lane common = lesser > own_var ? lesser - own_var : Lane{};
      const Lane inverse = 1.0 / (var[0] + var[1] - 2.0 * common + sd_m * sd_m);
      const Lane push = (usual - length) * inverse;
      for (int end = 0; end < 2; ++end) {
        double* at = ws.turned + ws.limbs[2 * limb + end] * kLanes;
        const Lane own = common > 0.0 ? 1.0 - common / var[end] : Lane{} + 1.0;
#pragma GCC unroll 6
        for (int row = 0; row < kState; ++row) along[end][row] *= own;
#pragma GCC unroll 6
        for (int row = 0; row < kState; ++row) {
          const Lane gain = along[end][row] * inverse;
          state[end][row] += end == 0 ? -along[end][row] * push : along[end][row] * push;
#pragma GCC unroll 6
          for (int column = 0; column <= row; ++column) s[end](row, column) -= gain * along[end][column];
        }
#pragma GCC unroll 6
        for (int i = 0; i < kState; ++i) store(at + i * n_padded * kLanes, state[end][i]);
#pragma GCC unroll 21
        for (int i = 0; i < kStateCov; ++i) store(at + (kState + i) * n_padded * kLanes, s[end].v[i]);
      }
      for (Size k = 0; k < width; ++k) ws.limb_lengths_m[rows[first + k] * n_limbs + limb] = usual[k];
    }
    for (int part = 0; part < kState + kStateCov; ++part)
      for (Size joint = 0; joint < n_padded; joint += kLanes) {
        Lane block[kLanes];
        for (Size k = 0; k < kLanes; ++k) load(block[k], ws.turned + (part * n_padded + joint + k) * kLanes);
        transpose(block);
        for (Size k = 0; k < width; ++k) store(from[part][k] + joint, block[k]);
      }
  }
}

// Update people with what was matched to them, and hold their limbs. rows (n_rows); detection_of (n_rows, n_views):
// whoever has no detection keeps the prediction.
inline void measure(const Workspace& ws, const Int* rows, const Int* detection_of, Size n_rows, const Measurement& how) {
  const Size n_padded = ws.n_padded, n_whole = ws.n_joints / kLanes * kLanes, n_rest = ws.n_joints - n_whole;
  Size n_held = 0;
  Int *held = ws.list, *index = ws.list + ws.capacity;
  for (Size r = 0; r < n_rows; ++r) {
    const Int* of = detection_of + r * ws.n_views;
    bool any_view = false;
    for (Size view = 0; view < ws.n_views; ++view) any_view |= of[view] >= 0;
    for (Size cell = r * ws.n_views; how.sums && cell < (r + 1) * ws.n_views; ++cell)
      how.sums[cell] = how.counts[cell] = 0.0;
    if (!any_view) continue;
    index[n_held] = Int(r);
    held[n_held++] = rows[r];
  }
  // Gathering costs half as much again.
  const bool shared = !how.sums && 3 * n_rest * ((n_held + kLanes - 1) / kLanes) < 2 * n_held;
  const Size n_own = shared ? n_whole : n_padded;
  for (Size first = 0; first < n_held; first += kLanes) {
    const Size width = n_held - first < kLanes ? n_held - first : kLanes;
    SharedLanes rest{ws};
    rest.width = width;
    rest.n = 0;
    rest.any_tally = false;
    Int* views = ws.shared;
    Int* of_views = ws.shared + ws.n_views;
    rest.views = views;
    rest.detection_of = of_views;
    for (Size k = 0; k < kLanes; ++k) {
      const Size i = first + (k < width ? k : 0);
      const Int row = held[i];
      const Int* of = detection_of + Size(index[i]) * ws.n_views;
      double *m = ws.mean + row * kState * n_padded, *c = ws.cov + row * kStateCov * n_padded;
      rest.m[k] = m;
      rest.c[k] = c;
      rest.heights[k] = ws.heights_m + row * n_padded;
      rest.held[k] = ws.support + i * n_padded;
      rest.tallies[k] = 0.0;
      if (k >= width) {
        for (int a = 0; a < 3; ++a) rest.axes[a][k] = rest.axes[a][0];
        continue;
      }
      const Matched matched = matched_views(ws, of);
      find_axis(m, c, n_padded, ws.axis_precision, rest.axes[0][k], rest.axes[1][k], rest.axes[2][k]);
      // One view alone is always right, so only people whom two views or more see tell anything of noise.
      const bool tally = how.tally >= 0 && matched.n >= 2 && index[i] % ws.noise_every == how.tally;
      rest.tallies[k] = tally ? 1.0 : 0.0;
      rest.any_tally |= tally;
      double* sums = how.sums ? how.sums + Size(index[i]) * ws.n_views : nullptr;
      double* counts = how.sums ? how.counts + Size(index[i]) * ws.n_views : nullptr;
      for (Size joint = 0; joint < n_own; joint += kLanes)
        update_joints(ws, OwnLanes{ws, m, c, rest.heights[k], rest.held[k], matched, joint, rest.axes[0][k],
                                   rest.axes[1][k], rest.axes[2][k], sums, counts, tally}, how);
    }
    if (!shared) continue;
    for (Size view = 0; view < ws.n_views; ++view) {
      Int together = -1;  // Stays negative only where all of them are: the sign bit of their conjunction.
      for (Size k = 0; k < kLanes; ++k) {
        const Int d = k < width ? detection_of[Size(index[first + k]) * ws.n_views + view] : -1;
        of_views[rest.n * kLanes + k] = d;
        together &= d;
      }
      if (together >= 0) views[rest.n++] = Int(view);
    }
    for (Size joint = n_whole; joint < ws.n_joints; ++joint) {
      rest.joint = joint;
      update_joints(ws, rest, how);
    }
  }
  if (ws.n_limbs) hold_limbs(ws, held, n_held, ws.support, how.learning);
}

// Variance along the worst direction: the largest eigenvalue of a symmetric 3 x 3 matrix. Scaled and shifted it is the
// largest root t of t^3 - 3 t = 2 half_det, between 1 and 2, which Newton's method finds from a series about its double
// root. Source of the scaling: Smith (1961), Eigenvalues of a symmetric 3 x 3 matrix.
FUSION_INLINE Lane worst_var(const Symmetric<3>& s) {
  const Lane mean = (s(0, 0) + s(1, 1) + s(2, 2)) * (1.0 / 3.0);
  const Lane a = s(0, 0) - mean, b = s(1, 1) - mean, d = s(2, 2) - mean;
  const Lane yx = s(1, 0), zx = s(2, 0), zy = s(2, 1);
  const Lane p_sq = (a * a + b * b + d * d + 2.0 * (yx * yx + zx * zx + zy * zy)) * (1.0 / 6.0);
  const Lane p = root(p_sq);
  const LaneMask round = ~(p > 1e-12 * mean);
  Lane half_det = (a * (b * d - zy * zy) - yx * (yx * d - zy * zx) + zx * (yx * zy - b * zx)) / (2.0 * p_sq * p);
  half_det = half_det < -1.0 ? Lane{} - 1.0 : half_det > 1.0 ? Lane{} + 1.0 : half_det;
  const Lane e = root((1.0 + half_det) * (2.0 / 3.0));
  Lane t = 1.0 + e - e * e * (1.0 / 6.0);
  for (int step = 0; step < 3; ++step) {
    const Lane slope = 3.0 * (t * t - 1.0);
    t -= slope > 1e-9 ? (t * (t * t - 3.0) - 2.0 * half_det) / slope : Lane{};
  }
  const Lane largest = round ? mean : mean + p * t;
  return largest > 0.0 ? largest : Lane{};
}

// What people read: joints with deviations, and the place on the floor as the mean of the trunk's joints weighted by
// share (n_joints) and by how well each is known. The deviation is the root mean square over directions: squared errors
// are three times its square on average. Joints less certain than sd_max_m in their worst direction become NaN.
inline void describe(const Workspace& ws, const Int* rows, Size n_rows, double* joints_m, double* joints_sd_m,
                     double* position_m, double* position_sd_m) {
  const Size n_joints = ws.n_joints, n_padded = ws.n_padded;
  const double sd_max_m = ws.joint_sd_max_m;
  const Lane unknown = Lane{} + std::nan("");
  for (Size r = 0; r < n_rows; ++r) {
    const double* m = ws.mean + rows[r] * kState * n_padded;
    const double* c = ws.cov + rows[r] * kStateCov * n_padded;
    Lane sum_w{}, sum_x{}, sum_y{}, sum_var{};
    for (Size first = 0; first < n_joints; first += kLanes) {
      const Size width = n_joints - first < kLanes ? n_joints - first : kLanes;
      Symmetric<3> s;
      Lane place[3], part{};
#pragma GCC unroll 6
      for (int i = 0; i < 6; ++i) load(s.v[i], c + i * n_padded + first);
#pragma GCC unroll 3
      for (int i = 0; i < 3; ++i) load(place[i], m + i * n_padded + first);
      for (Size k = 0; k < width; ++k) part[k] = ws.share[first + k];
      const Lane sd = root((s(0, 0) + s(1, 1) + s(2, 2)) * (1.0 / 3.0));
      const LaneMask known = worst_var(s) <= sd_max_m * sd_max_m;
      const Lane half = 0.5 * (s(0, 0) - s(1, 1));
      const Lane floor_var = 0.5 * (s(0, 0) + s(1, 1)) + root(half * half + s(1, 0) * s(1, 0));
      // A joint's distance from the body's axis is 5 cm even where the joint itself is known to the millimetre.
      const Lane w = part / (floor_var + 0.0025);
      sum_w += w;
      sum_x += w * place[0];
      sum_y += w * place[1];
      sum_var += w * floor_var;
      double told[4][kLanes];
#pragma GCC unroll 3
      for (int i = 0; i < 3; ++i) store(told[i], known ? place[i] : unknown);
      store(told[3], known ? sd : unknown);
      for (Size k = 0; k < width; ++k) {
        double* to = joints_m + 3 * (r * n_joints + first + k);
        for (int i = 0; i < 3; ++i) to[i] = told[i][k];
        joints_sd_m[r * n_joints + first + k] = told[3][k];
      }
    }
    const double total = sum(sum_w);
    position_m[2 * r] = sum(sum_x) / total;
    position_m[2 * r + 1] = sum(sum_y) / total;
    // Errors of one person's joints go together, so averaging does not make the place better than a typical joint.
    position_sd_m[r] = std::sqrt(sum(sum_var) / total + 0.0004);
  }
}


// ---- a whole set -----------------------------------------------------------------------------------------------------

// Two bodies nearer than this on the floor may be one person followed twice, metres: their joints are compared then, of
// which the mean distance has to be much less.
constexpr double kNearby = 0.4;

// Looks are learnt by a tenth each set: some seconds of pictures, from several sides.
inline void learn_looks(const Workspace& ws, Int row, const Matched& matched) {
  double* look = ws.looks + row * ws.appearance_dim;
  double known = 0.0, norm_sq = 0.0;
  for (Size i = 0; i < ws.appearance_dim; ++i) known += look[i] * look[i];
  for (Size i = 0; i < ws.appearance_dim; ++i) {
    double mean = 0.0;
    for (Size k = 0; k < matched.n; ++k) mean += ws.appearance[matched.detections[k] * ws.appearance_dim + i];
    mean /= double(matched.n);
    ws.blend[i] = known > 0.0 ? 0.9 * look[i] + 0.1 * mean : mean;
    norm_sq += ws.blend[i] * ws.blend[i];
  }
  if (!(norm_sq > 0.0)) return;
  for (Size i = 0; i < ws.appearance_dim; ++i) look[i] = ws.blend[i] / std::sqrt(norm_sq);
}

// Update everybody with what was matched, learn, and describe them. Returns what was Found.
//
// rows (n_rows), whose detections are in ws.detection_of; step_s since the last set.
inline Int follow(const Workspace& ws, const Int* rows, Size n_rows, Int t_ns, double step_s, Measurement how,
                  double* joints_m, double* joints_sd_m, double* position_m, double* position_sd_m) {
  const double kept = std::exp(-step_s / ws.noise_fade_s);
  for (Size j = 0; j < ws.n_padded; ++j) {
    ws.noise_total[j] *= kept;
    ws.noise_count[j] *= kept;
  }
  measure(ws, rows, ws.detection_of, n_rows, how);
  for (Size j = 0; j < ws.n_padded; ++j) {
    const double noise = (ws.noise_total[j] + ws.noise_prior) / (ws.noise_count[j] + ws.noise_prior);
    ws.noise[j] = noise < ws.noise_min ? ws.noise_min : noise > ws.noise_max ? ws.noise_max : noise;
  }
  describe(ws, rows, n_rows, joints_m, joints_sd_m, position_m, position_sd_m);
  Int found = 0;
  for (Int d = 0; d < ws.start[ws.n_views]; ++d)
    if (ws.track_of[d] == -1) found |= kFree;
  for (Size r = 0; r < n_rows; ++r) {
    const Int row = rows[r];
    const Matched matched = matched_views(ws, ws.detection_of + r * ws.n_views);
    const bool confirmed = ws.confirmed[row], named = ws.track_id[row] >= 0;
    if (matched.n) {
      ws.seen_ns[row] = t_ns;
      ws.sets_seen[row] += matched.n >= 2;
      ws.sets_alone[row] += matched.n == 1;
      if (!confirmed) found |= kTentativeSeen;
      if (ws.appearance_dim) learn_looks(ws, row, matched);
    }
    if (confirmed && matched.n <= 1) found |= kDoubted;
    else ws.sure_ns[row] = t_ns;
    if (!named) found |= kUnnamed;
    if (!confirmed || !named || !(position_sd_m[r] <= ws.position_sd_max_m)) found |= kUnsure;
    const double unseen_s = double(t_ns - ws.seen_ns[row]) * 1e-9;
    const bool doubtful = double(t_ns - ws.sure_ns[row]) * 1e-9 > ws.doubt_max_s;
    if (doubtful || unseen_s > (confirmed ? ws.coasting_max_s : ws.tentative_max_s)) found |= kOverdue;
    for (Size other = 0; other < r; ++other) {
      const double dx = position_m[2 * r] - position_m[2 * other];
      const double dy = position_m[2 * r + 1] - position_m[2 * other + 1];
      if (dx * dx + dy * dy < kNearby * kNearby) found |= kDuplicates;
    }
  }
  return found;
}

extern const Kernels kKernels{
    &undistort, &triangulate, &refine, &prepare, &predict, &costs, &match, &measure, &follow, &describe,
};

}  // namespace FUSION_ISA
}  // namespace fusion
