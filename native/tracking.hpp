// One set of frames: tracks updated, described, and checked for anything out of the ordinary; and the table of all
// kernels. Plain C++17 over joints.hpp; loops over the arrays of a Workspace (isa.hpp). Nothing is allocated, nothing
// raised.
//
// Compiled once for each instruction set, into a namespace of its own: FUSION_ISA (see isa.hpp), hence without a guard.

namespace fusion {
namespace FUSION_ISA {

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

// The reported state of tracks: joints with standard deviations, and the place on the floor as the mean of the joints
// weighted by trunk_weight (n_joints) and by how well each is known. The deviation is the root mean square over
// directions: squared errors are three times its square on average. A joint less certain than joint_sd_max_m in its worst
// direction becomes NaN.
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
      for (Size k = 0; k < width; ++k) part[k] = ws.trunk_weight[first + k];
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
      double out[4][kLanes];
#pragma GCC unroll 3
      for (int i = 0; i < 3; ++i) store(out[i], known ? place[i] : unknown);
      store(out[3], known ? sd : unknown);
      for (Size k = 0; k < width; ++k) {
        double* to = joints_m + 3 * (r * n_joints + first + k);
        for (int i = 0; i < 3; ++i) to[i] = out[i][k];
        joints_sd_m[r * n_joints + first + k] = out[3][k];
      }
    }
    const double total = sum(sum_w);
    position_m[2 * r] = sum(sum_x) / total;
    position_m[2 * r + 1] = sum(sum_y) / total;
    // Errors of one body's joints are correlated, so averaging does not make the place better than a typical joint.
    position_sd_m[r] = std::sqrt(sum(sum_var) / total + 0.0004);
  }
}

// ---- a whole set -----------------------------------------------------------------------------------------------------

// Two tracks nearer than this on the floor may follow one person, metres: their joints are compared then.
constexpr double kNearby = 0.4;

// Learn a track's appearance: an exponential mean with weight 0.1 for each set, some seconds of pictures from several
// sides.
inline void learn_appearance(const Workspace& ws, Int row, const Matched& matched) {
  double* known_as = ws.track_appearance + row * ws.appearance_dim;
  double known = 0.0, norm_sq = 0.0;
  for (Size i = 0; i < ws.appearance_dim; ++i) known += known_as[i] * known_as[i];
  for (Size i = 0; i < ws.appearance_dim; ++i) {
    double mean = 0.0;
    for (Size k = 0; k < matched.n; ++k) mean += ws.appearance[matched.detections[k] * ws.appearance_dim + i];
    mean /= double(matched.n);
    ws.blend[i] = known > 0.0 ? 0.9 * known_as[i] + 0.1 * mean : mean;
    norm_sq += ws.blend[i] * ws.blend[i];
  }
  if (!(norm_sq > 0.0)) return;
  for (Size i = 0; i < ws.appearance_dim; ++i) known_as[i] = ws.blend[i] / std::sqrt(norm_sq);
}

// Update all tracks with their matched detections, learn from them, and describe them. Returns Found bits.
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
    if (ws.track_of[d] == kUnassigned) found |= kFree;
  for (Size r = 0; r < n_rows; ++r) {
    const Int row = rows[r];
    const Matched matched = matched_views(ws, ws.detection_of + r * ws.n_views);
    const bool confirmed = ws.confirmed[row], named = ws.track_id[row] >= 0;
    if (matched.n) {
      ws.seen_ns[row] = t_ns;
      ws.multi_view_sets[row] += matched.n >= 2;
      ws.single_view_sets[row] += matched.n == 1;
      if (!confirmed) found |= kTentativeSeen;
      if (ws.appearance_dim) learn_appearance(ws, row, matched);
    }
    if (confirmed && matched.n <= 1) found |= kDoubted;
    else ws.undoubted_ns[row] = t_ns;
    if (!named) found |= kUnnamed;
    if (!confirmed || !named || !(position_sd_m[r] <= ws.position_sd_max_m)) found |= kUnsure;
    const double unseen_s = double(t_ns - ws.seen_ns[row]) * 1e-9;
    const bool doubtful = double(t_ns - ws.undoubted_ns[row]) * 1e-9 > ws.doubt_max_s;
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
    &undistort, &locate_linear, &locate, &place_by_height, &pair_scores, &pair_costs, &prepare,
    &predict,   &costs,         &match,  &measure,         &follow,      &describe,
};

}  // namespace FUSION_ISA
}  // namespace fusion
