// Grouping: whether two detections of different cameras are of one person, by where the rays of their joints meet. Plain
// C++17 over detections.hpp; loops over arrays that the caller owns. Nothing is kept, nothing raised.
//
// Image coordinates are normalised and undistorted; joints are padded to n_padded.
//
// Compiled once for each instruction set, into a namespace of its own: FUSION_ISA (see isa.hpp), hence without a guard.

namespace fusion {
namespace FUSION_ISA {

// Most that one joint adds to the mean cost of a pair: four standard deviations.
constexpr float kJointCostMax = 16.0f;
// Depth below which two rays do not meet in front of a camera, metres.
constexpr float kMeetingMin = 0.2f;

// Heights between which the middle of a body's visible joints lies, metres, with room for all that bodies do: a joint whose
// rays meet further off is at the height of no body.
constexpr float kOddLow = -0.9f, kOddHigh = 2.7f;

FUSION_INLINE double dot(const double* a, const double* b) { return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]; }

// Place on the floor of a person seen by one camera, from the usual heights of the joints.
//
// Every joint's ray meets the height that the joint usually has; their weighted mean is the place. All joints share one
// stature, so its error does not average out and lies along the line of sight.
//
// camera (3, 4) from world; x, y, seen (n_padded); heights_m (n_padded, 2) mean and standard deviation; stature_sd a
// share. out (5): x, y, and the place's covariance xx, yx, yy; NaN where nothing can be derived.
inline void place_by_height(const double* camera, const float* x, const float* y, const float* seen,
                            const double* heights_m, Size n_padded, double stature_sd, double* out) {
  double eye[3];
  find_eye(camera, eye);
  for (int i = 0; i < 5; ++i) out[i] = std::nan("");
  double weight = 0.0, sum[2] = {}, along[2] = {};
  for (Size j = 0; j < n_padded; ++j) {
    if (seen[j] == 0.0f) continue;
    double d[3];
    for (int i = 0; i < 3; ++i) d[i] = camera[i] * x[j] + camera[4 + i] * y[j] + camera[8 + i];
    if (std::fabs(d[2]) < 1e-3) continue;
    const double height = heights_m[2 * j], sd = heights_m[2 * j + 1], s = (height - eye[2]) / d[2];
    if (s < kMeetingMin) continue;
    // The place moves by the slope when the height is one metre off.
    const double slope[2] = {d[0] / d[2], d[1] / d[2]};
    const double w = 1.0 / (sd * sd * (slope[0] * slope[0] + slope[1] * slope[1]) + 0.04);
    weight += w;
    for (int i = 0; i < 2; ++i) {
      sum[i] += w * (eye[i] + s * d[i]);
      // A stature off by a share of itself moves the joint by that share of its height.
      along[i] += w * slope[i] * height * stature_sd;
    }
  }
  if (weight == 0.0) return;
  const double lx = along[0] / weight, ly = along[1] / weight, independent = 0.15 * 0.15 + 1.0 / weight;
  out[0] = sum[0] / weight;
  out[1] = sum[1] / weight;
  out[2] = lx * lx + independent;
  out[3] = lx * ly;
  out[4] = ly * ly + independent;
}

// What is known of detections before any two are compared: eyes (n, 3), directions (n, 3, n_padded) of camera depth 1,
// their mean over the joints seen, how far from it the furthest of these lies at depth 1, and their number. Directions are
// in single precision, which is a tenth of a millimetre; detectors are a hundred times worse.
struct Rays {
  const PairInput& in;
  double *eyes, *middles, *radii, *counts;
  float *directions, *columns;
  Size n_used = 0;  // Lanes up to the last joint that any detection shows, in whole vectors.

  explicit Rays(const PairInput& input) : in(input) {
    eyes = in.scratch + 5 * in.n;
    middles = eyes + 3 * in.n;
    radii = middles + 3 * in.n;
    counts = radii + in.n;
    directions = in.directions;
    columns = directions + 3 * in.n * in.n_padded;
    for (Size a = 0; a < in.n; ++a) {
      const float* seen = in.seen + Size(in.free[a]) * in.n_padded;
      for (Size j = in.n_padded; j > n_used && n_used < in.n_padded; --j)
        if (seen[j - 1] != 0.0f) n_used = (j + kLanesF - 1) / kLanesF * kLanesF;
    }
    for (Size a = 0; a < in.n; ++a) cast(a);
  }

  FUSION_INLINE LaneF row(const float* of, Size detection, Size first) const {
    return load_joints(of + detection * in.n_padded, first, in.n_padded);
  }
  FUSION_INLINE LaneF direction(Size a, int i, Size first) const {
    return load_joints(directions + (3 * a + Size(i)) * in.n_padded, first, in.n_padded);
  }

  inline void cast(Size a) {
    const Size d = Size(in.free[a]), n_padded = in.n_padded;
    const double* p = in.camera_from_world + 12 * in.view_of[d];
    find_eye(p, eyes + 3 * a);
    LaneF total[4] = {}, furthest_sq{};
    for (Size first = 0; first < n_used; first += kLanesF) {
      const LaneF x = row(in.x, d, first), y = row(in.y, d, first), seen = row(in.seen, d, first);
      for (int i = 0; i < 3; ++i) {
        const LaneF along = float(p[i]) * x + float(p[4 + i]) * y + float(p[8 + i]);
        float* to = directions + (3 * a + Size(i)) * n_padded + first;
        if (first + kLanes < n_padded) store(to, along);
        else store_half(to, along);
        total[i] += seen * along;
      }
      total[3] += seen;
    }
    counts[a] = sum(total[3]);
    double* middle = middles + 3 * a;
    for (int i = 0; i < 3; ++i) middle[i] = sum(total[i]) / (counts[a] > 1.0 ? counts[a] : 1.0);
    for (Size first = 0; first < n_used; first += kLanesF) {
      LaneF off_sq{};
      for (int i = 0; i < 3; ++i) {
        const LaneF off = direction(a, i, first) - float(middle[i]);
        off_sq += off * off;
      }
      furthest_sq = greater(furthest_sq, row(in.seen, d, first) * off_sq);
    }
    radii[a] = std::sqrt(highest(furthest_sq));
    for (int i = 0; i < 3; ++i) {
      row_of(i)[a] = float(eyes[3 * a + Size(i)]);
      row_of(3 + i)[a] = float(middle[i]);
    }
    row_of(6)[a] = float(radii[a]);
  }

  // Eye, middle and radius of all detections as rows of numbers, in whole vectors.
  FUSION_INLINE float* row_of(int number) const { return columns + Size(number) * wide(in.n); }

  // Which of the first n_before detections are bodies so far from body a that their joints' rays do not meet: their middle
  // rays pass half a metre and most of the extents of both from each other, since the same joint lies to the same side
  // of both middles; they come near each other well behind a camera; or so low or high that every joint is odd. A vector of
  // them at a time; far (n_before), in whole vectors.
  inline void find_apart(Size a, Size n_before, std::int32_t* far) const {
    const float eye_z = row_of(2)[a], ra = row_of(6)[a];
    const LaneF none{};
    for (Size first = 0; first < n_before; first += kLanesF) {
      LaneF w[3], db[3], radius;
      float da[3];
      for (int i = 0; i < 3; ++i) {
        load(w[i], row_of(i) + first);
        load(db[i], row_of(3 + i) + first);
        w[i] -= row_of(i)[a];
        da[i] = row_of(3 + i)[a];
      }
      load(radius, row_of(6) + first);
      const LaneF nx = da[1] * db[2] - da[2] * db[1], ny = da[2] * db[0] - da[0] * db[2];
      const LaneF nz = da[0] * db[1] - da[1] * db[0], nn = nx * nx + ny * ny + nz * nz;
      const float aa = da[0] * da[0] + da[1] * da[1] + da[2] * da[2];
      const LaneF bb = db[0] * db[0] + db[1] * db[1] + db[2] * db[2];
      const LaneF ab = da[0] * db[0] + da[1] * db[1] + da[2] * db[2];
      const LaneF wa = w[0] * da[0] + w[1] * da[1] + w[2] * da[2], wb = w[0] * db[0] + w[1] * db[1] + w[2] * db[2];
      // nn times the depths of the nearest points.
      const LaneF s = wa * bb - wb * ab, t = wa * ab - wb * aa;
      const LaneF gap = w[0] * nx + w[1] * ny + w[2] * nz;
      const LaneF away_s = s < none ? -s : s, away_t = t < none ? -t : t;
      const LaneF reach = 0.5f * nn + 0.8f * (away_s * ra + away_t * radius);
      // nn times twice the height of the point between the two nearest.
      const LaneF height = nn * (2.0f * eye_z + w[2]) + s * da[2] + t * db[2];
      const LaneFMask passing = gap * gap * nn > reach * reach, behind = lesser(s, t) < -2.0f * nn;
      const LaneFMask odd = (height < 2.0f * kOddLow * nn) | (height > 2.0f * kOddHigh * nn);
      // Rays within 10 degrees of parallel come near each other anywhere.
      store(far + first, (nn >= 0.03f * aa * bb) & (passing | behind | odd));
    }
  }
};

// The comparison of two detections' joints: the score of all joints that compare, the number of meeting points, the sums
// of their coordinates; the number of joints that both saw, of those that compare, and their total cost.
struct Meeting {
  float score, met, place[3], common, count, cost;
};

// Compare the rays of two detections, joint by joint, joints in the lanes.
inline Meeting meet(const Rays& rays, Size a, Size b, const PairModel& model) {
  const PairInput& in = rays.in;
  const Size d = Size(in.free[a]), e = Size(in.free[b]);
  const double *eye_a = rays.eyes + 3 * a, *eye_b = rays.eyes + 3 * b;
  float w[3], between[3];
  for (int i = 0; i < 3; ++i) {
    w[i] = float(eye_b[i] - eye_a[i]);
    between[i] = float(eye_a[i] + eye_b[i]);
  }
  const double moved = model.speed_m_s * (in.dt_s[in.view_of[d]] - in.dt_s[in.view_of[e]]);
  const float moved_sq = float(moved * moved), gain = float(model.joint_gain), loss_max = float(model.joint_loss);
  const float scale = float(model.joint_scale);
  const LaneF none{};
  LaneF score{}, met{}, sum_place[3] = {}, common{}, count{}, cost{};
  for (Size first = 0; first < rays.n_used; first += kLanesF) {
    LaneF ra[3], rb[3], body_var, height, height_scale;
#pragma GCC unroll 3
    for (int i = 0; i < 3; ++i) {
      ra[i] = rays.direction(a, i, first);
      rb[i] = rays.direction(b, i, first);
    }
    const LaneF var_a = rays.row(in.var, d, first), var_b = rays.row(in.var, e, first);
    const LaneF both = rays.row(in.seen, d, first) * rays.row(in.seen, e, first);
    load(body_var, in.body_var + first);
    load(height, in.usual_m + first);
    load(height_scale, in.odd_per_m + first);
    const LaneF nx = ra[1] * rb[2] - ra[2] * rb[1], ny = ra[2] * rb[0] - ra[0] * rb[2];
    const LaneF nz = ra[0] * rb[1] - ra[1] * rb[0], nn = nx * nx + ny * ny + nz * nz;
    const LaneF aa = ra[0] * ra[0] + ra[1] * ra[1] + ra[2] * ra[2], bb = rb[0] * rb[0] + rb[1] * rb[1] + rb[2] * rb[2];
    const LaneF ab = ra[0] * rb[0] + ra[1] * rb[1] + ra[2] * rb[2];
    // Rays within 3 degrees of parallel meet anywhere.
    const LaneF compares = nn >= 0.0027f * aa * bb ? both : none;
    const LaneF wa = w[0] * ra[0] + w[1] * ra[1] + w[2] * ra[2], wb = w[0] * rb[0] + w[1] * rb[1] + w[2] * rb[2];
    // Along both rays in units of depth, since a ray's camera z is 1.
    const LaneF inverse = 1.0f / greater(nn, none + 1e-12f);
    const LaneF s = (wa * bb - wb * ab) * inverse, t = (wa * ab - wb * aa) * inverse;
    const LaneF ahead = lesser(s, t) >= kMeetingMin ? compares : none;
    const LaneF gap = w[0] * nx + w[1] * ny + w[2] * nz;
    const LaneF spread = s * s * var_a + t * t * var_b + 2.0f * body_var + moved_sq;
    LaneF place[3];
#pragma GCC unroll 3
    for (int i = 0; i < 3; ++i) place[i] = 0.5f * (between[i] + s * ra[i] + t * rb[i]);
    // Children are short and people crouch: three standard deviations of standing adults are still cheap.
    const LaneF odd = (place[2] - height) * height_scale, half_odd_sq = 0.5f * odd * odd;
    const LaneF distance_sq = gap * gap * inverse / spread;
    // Detectors' tails are heavy and left is taken for right: one joint may contradict, but not decide.
    const LaneF loss = loss_max * distance_sq / (distance_sq + scale) + half_odd_sq;
    score += compares * gain - ahead * lesser(loss, none + loss_max) - (compares - ahead) * loss_max;
    common += both;
    count += compares;
    cost += ahead * lesser(distance_sq + half_odd_sq, none + kJointCostMax) + (compares - ahead) * kJointCostMax;
    met += ahead;
#pragma GCC unroll 3
    for (int i = 0; i < 3; ++i) sum_place[i] += ahead * place[i];
  }
  return {sum(score),  sum(met),   {sum(sum_place[0]), sum(sum_place[1]), sum(sum_place[2])},
          sum(common), sum(count), sum(cost)};
}

// Score of two places (5) by height for one person; centre (3) becomes their weighted mean on the floor.
//
// The log ratio of N(difference; 0, sum of the covariances) to a constant density, with a bounded loss.
FUSION_INLINE double agree(const double* a, const double* b, const PairModel& model, double* centre) {
  const double xx = a[2] + b[2], yx = a[3] + b[3], yy = a[4] + b[4], det = xx * yy - yx * yx;
  const double dx = b[0] - a[0], dy = b[1] - a[1];
  // Solve (A + B) (u, v) = b - a once: for the distance, and for the mean a + A (u, v).
  const double u = (yy * dx - yx * dy) / det, v = (xx * dy - yx * dx) / det, distance_sq = u * dx + v * dy;
  centre[0] = a[0] + a[2] * u + a[3] * v;
  centre[1] = a[1] + a[3] * u + a[4] * v;
  centre[2] = 0.0;
  return model.place_gain - 0.5 * std::log(det) - model.place_loss * distance_sq / (distance_sq + model.place_scale);
}

// Evidence that two detections of different cameras are of one person, as a log likelihood ratio.
//
// Every joint that both saw counts by the distance of its two rays in standard deviations z and, at half its weight, by
// how unusual the height of their meeting point is for that joint (two people on one epipolar line meet at odd heights):
// gain - min(loss z^2 / (z^2 + scale) + odd^2 / 2, loss), the Geman-McClure function in place of a heavy-tailed
// distribution's. All joints, common or not, give each detection a place by their usual heights, and the two places must
// agree. Cameras take their pictures at different instants, so people's speed widens the tolerance. Most pairs of a hall
// are of bodies far apart: their joints count as seen by both and not meeting, and nothing is compared.
//
// out (n, n), of which the lower triangle is written, far below zero for two detections of one camera; centre
// (n (n - 1) / 2, 3), that triangle row by row: mean meeting point, or the mean of the two places where no rays meet; NaN
// where there is neither. Single precision and half a square: a hall's detections would fill 15 MB otherwise.
// Source of the rays' nearest points: Hartley and Zisserman, Multiple View Geometry (2004), section 12.2; of the
// function: Geman and McClure, Statistical Methods for Tomographic Image Reconstruction (1987).
inline void pair_scores(const PairInput& in, const PairModel& model, double* out, float* centre) {
  const Size n = in.n;
  double* places = in.scratch;
  const Rays rays(in);
  for (Size a = 0; a < n; ++a) {
    const Size d = Size(in.free[a]), row = d * in.n_padded;
    place_by_height(in.camera_from_world + 12 * in.view_of[d], in.x + row, in.y + row, in.seen + row, in.heights_m,
                    in.n_padded, model.stature_sd, places + 5 * a);
  }
  std::int32_t* far = reinterpret_cast<std::int32_t*>(rays.row_of(7));
  for (Size a = 0; a < n; ++a) {
    const Int view = in.view_of[in.free[a]];
    const bool placed = std::isfinite(places[5 * a]);
    rays.find_apart(a, a, far);
    out[a * n + a] = kImpossible;
    for (Size b = 0; b < a; ++b, centre += 3) {
      double score = kImpossible, at[3] = {std::nan(""), std::nan(""), std::nan("")};
      if (view != in.view_of[in.free[b]] && far[b]) {
        score = std::fmin(rays.counts[a], rays.counts[b]) * (model.joint_gain - model.joint_loss);
      } else if (view != in.view_of[in.free[b]]) {
        const Meeting found = meet(rays, a, b, model);
        score = found.score;
        if (placed && std::isfinite(places[5 * b])) score += agree(places + 5 * a, places + 5 * b, model, at);
        for (int i = 0; found.met > 0.0f && i < 3; ++i) at[i] = found.place[i] / found.met;
        if (!std::isfinite(score)) score = kImpossible;
      }
      out[a * n + b] = score;
      for (int i = 0; i < 3; ++i) centre[i] = float(at[i]);
    }
  }
}

// How far the rays of two detections are from meeting: the mean over joints of min(z^2 + odd^2 / 2, 16).
//
// z and odd as in pair_scores; joints_min: joints that must compare. out (n_first, n): of the first detections against
// all, about 1 for one person, kNever where nothing compares. It shows whether a camera's rays meet at all, and does not
// grow with the number of joints as a score does.
inline void pair_costs(const PairInput& in, const PairModel& model, double joints_min, Size n_first, double* out) {
  const Rays rays(in);
  for (Size a = 0; a < n_first; ++a)
    for (Size b = 0; b < in.n; ++b) {
      double& cost = out[a * in.n + b] = kNever;
      if (in.view_of[in.free[a]] == in.view_of[in.free[b]]) continue;
      const Meeting found = meet(rays, a, b, model);
      // Half of the common joints may be nearly parallel, but not more: the rest would decide by chance.
      if (found.count >= joints_min && 2.0f * found.count >= found.common && !std::isnan(found.cost))
        cost = found.cost / found.count;
    }
}

}  // namespace FUSION_ISA
}  // namespace fusion
