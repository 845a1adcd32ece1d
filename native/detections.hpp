// Detections made ready for tracking: pixels to normalised coordinates with variances, and the key joints that matching
// compares. Plain C++17 over triangulation.hpp; loops over the arrays of a Workspace (isa.hpp). Nothing is allocated,
// nothing raised.
//
// Normalised image coordinates lie on the plane one unit in front of the camera, without distortion.
//
// Compiled once for each instruction set, into a namespace of its own: FUSION_ISA (see isa.hpp), hence without a guard.

namespace fusion {
namespace FUSION_ISA {

// Joint states: position and velocity, and the lower triangle of their covariance.
constexpr int kState = 6;
constexpr int kStateCov = Symmetric<kState>::kSize;

// No lens of OpenCV's model sees farther off its axis than 84 degrees. Such a keypoint is a corrupt number.
constexpr float kTangentMax = 10.0f;
// Layouts have at most 32 joints: this many vectors of single precision.
constexpr Size kJointGroups = 32 / kLanesF;
// Lanes of a row that hold joints, in whole vectors; a row is padded for the widest.
FUSION_INLINE Size used_lanes(const Workspace& ws) { return (ws.n_joints + kLanes - 1) / kLanes * kLanes; }
// Vectors that hold the keys.
constexpr Size kKeyGroups = kKeys / kLanesF;

// Joints of a padded row in single precision, from `first` on; half of the widest vector may lie beyond the row's end.
FUSION_INLINE LaneF load_joints(const double* row, Size first, Size n_padded) {
  Lane low, high{};
  load(low, row + first);
  if (first + kLanes < n_padded) load(high, row + first + kLanes);
  return narrow(low, high);
}
FUSION_INLINE LaneF load_joints(const float* row, Size first, Size n_padded) {
  LaneF joints{};
  if (first + kLanes < n_padded) load(joints, row + first);
  else std::memcpy(&joints, row + first, sizeof(HalfF));
  return joints;
}

// Picks the key joints out of a row of joints.
struct Keys {
  std::int32_t places[kKeys], valid[kKeys];
#if !defined(__clang__)
  // One instruction picks from a vector by places that are not known when compiled: AVX-512 from two vectors of sixteen,
  // AVX2 from one of eight. SSE2 has none.
  static constexpr bool kPermutes = kLanesF >= 8;
  LaneFMask at[kKeyGroups], from[kJointGroups][kKeyGroups];
#endif

  explicit Keys(const Workspace& ws) {
    for (Size k = 0; k < kKeys; ++k) {
      places[k] = ws.keys[k] < 0 ? 0 : std::int32_t(ws.keys[k]);
      valid[k] = ws.keys[k] < 0 ? 0 : -1;
    }
#if !defined(__clang__)
    for (Size g = 0; g < kKeyGroups; ++g) {
      at[g] = read<LaneFMask>(places + g * kLanesF);
      const LaneFMask on = read<LaneFMask>(valid + g * kLanesF);
      for (Size s = 0; s < kJointGroups; ++s) from[s][g] = (at[g] / std::int32_t(kLanesF) == std::int32_t(s)) & on;
      at[g] &= std::int32_t(kLanesF) - 1;
    }
#endif
  }
  // row (n_padded) of either precision; to (kKeys), zero where a layout lacks the key.
  template <class T>
  FUSION_INLINE void pick(const T* row, [[maybe_unused]] Size n_padded, float* to) const {
#if !defined(__clang__)
    if constexpr (kPermutes) {
      LaneF picked[kKeyGroups]{};
      for (Size s = 0; s * kLanesF < n_padded; ++s) {
        const LaneF joints = load_joints(row, s * kLanesF, n_padded);
#pragma GCC unroll 4
        for (Size g = 0; g < kKeyGroups; ++g) picked[g] = from[s][g] ? __builtin_shuffle(joints, at[g]) : picked[g];
      }
#pragma GCC unroll 4
      for (Size g = 0; g < kKeyGroups; ++g) store(to + g * kLanesF, picked[g]);
      return;
    }
#endif
    for (Size k = 0; k < kKeys; ++k) to[k] = valid[k] ? float(row[places[k]]) : 0.0f;
  }
};

// What matching reads of a detection in addition to its keys: the part of the image that the keys and the cap on their
// distance span, the number of keys seen, and the sum of their variances.
enum Bound { kLeft, kRight, kTop, kBottom, kCount, kNoise };

// Places of every third number, from the one numbered `part` on: first in two vectors, as many as lie there, then in what
// was picked from them and a third vector.
template <Size part>
struct ThirdsOfTwo {
  static constexpr Size kThere = (2 * kLanesF - part + 2) / 3;
  static constexpr Size at(Size k) { return k < kThere ? 3 * k + part : 0; }
};
template <Size part>
struct ThirdsOfThree {
  static constexpr Size kThere = ThirdsOfTwo<part>::kThere;
  static constexpr Size at(Size k) { return k < kThere ? k : 3 * k + part - kLanesF; }
};

// Keypoints of (x, y, score) each, as three vectors. `interleaved` holds the 3 n numbers; what lies beyond n is read as zero,
// which no detector reports as seen.
FUSION_INLINE void split_keypoints(const float* interleaved, Size n, LaneF& u, LaneF& v, LaneF& score) {
  LaneF parts[3];
  if (n >= kLanesF) {
    for (Size i = 0; i < 3; ++i) load(parts[i], interleaved + i * kLanesF);
  } else {
    float padded[3 * kLanesF] = {};
    std::memcpy(padded, interleaved, sizeof(float) * 3 * n);
    for (Size i = 0; i < 3; ++i) load(parts[i], padded + i * kLanesF);
  }
  u = shuffled<ThirdsOfThree<0>>(shuffled<ThirdsOfTwo<0>>(parts[0], parts[1]), parts[2]);
  v = shuffled<ThirdsOfThree<1>>(shuffled<ThirdsOfTwo<1>>(parts[0], parts[1]), parts[2]);
  score = shuffled<ThirdsOfThree<2>>(shuffled<ThirdsOfTwo<2>>(parts[0], parts[1]), parts[2]);
}

// Undistort all keypoints of one view into four rows of ws.points: x, y, variance, seen. Returns the number of keypoints
// whose score claims that they were seen but which are not finite or lie where no lens looks.
//
// The points are one row, whatever detections they belong to: one detection alone would leave half of its second vector
// empty. Four vectors walk side by side.
FUSION_INLINE Int undistort_view(const Workspace& ws, Size view, const float* keypoints, float* const (&row)[4]) {
  Int n_broken = 0;
  const LaneF one = LaneF{} + 1.0f, none{};
  const double* lens = ws.lenses + kIntrinsics * view;
  const float score_min = float(ws.score_min);
  const float sure_var = float(ws.keypoint_sd_px * ws.keypoint_sd_px / (lens[0] * lens[1]));
  const bool is_wide = kind_of(lens) >= kFullBrown;
  const Size n_points = Size(ws.start[view + 1] - ws.start[view]) * ws.n_joints;
  for (Size first = 0; first < n_points; first += kGroups * kLanesF) {
    const Size n_left = (n_points - first + kLanesF - 1) / kLanesF, n_groups = n_left < kGroups ? n_left : kGroups;
    Undistortion<LaneF, float> groups[kGroups];
    LaneFMask used[kGroups];
    LaneF certainty[kGroups];
    for (Size g = 0; g < n_groups; ++g) {
      const Size at = first + g * kLanesF;
      LaneF u, v, score;
      split_keypoints(keypoints + 3 * at, n_points - at, u, v, score);
      const LaneFMask claimed = ~(score <= none);
      const LaneFMask finite = (u - u == none) & (v - v == none) & (score - score == none);
      const LaneFMask broken = claimed & ~finite;
      if (any(broken)) n_broken += Int(sum(broken ? one : none));
      used[g] = claimed & finite & (score >= score_min);
      // Detectors localise a point worse when they are unsure of it: the deviation grows with the inverse of the score.
      certainty[g] = used[g] ? (score < one ? score : one) : one;
      groups[g].begin(lens, used[g] ? u : none + float(lens[2]), used[g] ? v : none + float(lens[3]));
    }
    // Where no point moved by more than a thousandth, the next step would change a thousandth of a pixel.
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
      LaneF var = sure_var / (certainty[g] * certainty[g]);
      // A wide lens shows the same angle with fewer pixels near its edge.
      if (is_wide) var *= groups[g].stretch;
      store(row[2] + at, used[g] ? var : one);
      store(row[3] + at, used[g] ? one : none);
    }
  }
  return n_broken;
}

// Copy one detection's joints from the rows of its view into padded lanes, and keep its keys and their bounds. `first` is
// its first point in the rows; `own` marks the lanes of the layout's joints; the joints of the next detection lie in
// the lanes after them.
FUSION_INLINE void keep_detection(const Workspace& ws, Int d, Size first, const float* const (&row)[4],
                                  const LaneFMask (&own)[kJointGroups], const Keys& keys, float cap) {
  const LaneF one = LaneF{} + 1.0f, none{};
  const Size n_padded = ws.n_padded;
  float* const to[4] = {ws.x, ws.y, ws.var, ws.seen};
  const LaneF unseen[4] = {none, none, one, none};
  float* kept = ws.seen_keys + kSeenKeys * d;
  for (int i = 0; i < 4; ++i) {
    for (Size g = 0; g * kLanesF < n_padded; ++g) {
      LaneF joints;
      load(joints, row[i] + first + g * kLanesF);
      joints = own[g] ? joints : unseen[i];
      float* lanes = to[i] + Size(d) * n_padded + g * kLanesF;
      if (g * kLanesF + kLanes < n_padded) store(lanes, joints);
      else store_half(lanes, joints);
    }
    keys.pick(to[i] + Size(d) * n_padded, n_padded, kept + i * kKeys);
  }
  const LaneF far = LaneF{} + 1e30f;
  LaneF left = far, right = -far, top = far, bottom = -far, var_max{}, count{}, noise{};
#pragma GCC unroll 4
  for (Size g = 0; g < kKeyGroups; ++g) {
    LaneF x, y, var, seen;
    load(x, kept + g * kLanesF);
    load(y, kept + kKeys + g * kLanesF);
    load(var, kept + 2 * kKeys + g * kLanesF);
    load(seen, kept + 3 * kKeys + g * kLanesF);
    const LaneFMask on = seen != none;
    left = lesser(left, on ? x : far);
    right = greater(right, on ? x : -far);
    top = lesser(top, on ? y : far);
    bottom = greater(bottom, on ? y : -far);
    var_max = greater(var_max, on ? var : none);
    count += seen;
    noise += seen * var;
  }
  float* bound = ws.bounds + kBounds * d;
  const float reach = std::sqrt(cap * highest(var_max));
  bound[kLeft] = lowest(left) - reach;
  bound[kRight] = highest(right) + reach;
  bound[kTop] = lowest(top) - reach;
  bound[kBottom] = highest(bottom) + reach;
  bound[kCount] = sum(count);
  bound[kNoise] = sum(noise);
}

// Bring a set's detections into the arrays of the workspace: normalised coordinates, the variance of either coordinate,
// and 1 or 0 for seen, joints padded to n_padded lanes; and the keys that matching compares. Returns the number of broken
// keypoints, see undistort_view.
//
// keypoints (n_views): each view's detections, (n, n_joints, 3) in single precision, n as ws.start gives it. The error of
// single precision is a ten-thousandth of a pixel; detectors report no more digits.
inline Int prepare(const Workspace& ws, const float* const* keypoints) {
  const Keys keys(ws);
  Int n_broken = 0;
  const float cap = float(ws.joint_cost_cap);
  LaneFMask own[kJointGroups];
  for (Size g = 0; g < kJointGroups; ++g)
    for (Size k = 0; k < kLanesF; ++k) own[g][k] = g * kLanesF + k < ws.n_joints ? -1 : 0;
  float* const row[4] = {ws.points, ws.points + ws.points_row, ws.points + 2 * ws.points_row,
                         ws.points + 3 * ws.points_row};
  for (Size view = 0; view < ws.n_views; ++view) {
    n_broken += undistort_view(ws, view, keypoints[view], row);
    for (Int d = ws.start[view]; d < ws.start[view + 1]; ++d)
      keep_detection(ws, d, Size(d - ws.start[view]) * ws.n_joints, row, own, keys, cap);
  }
  return n_broken;
}

}  // namespace FUSION_ISA
}  // namespace fusion
