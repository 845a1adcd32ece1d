// The Kalman filter of every joint: prediction, robust update by all views together, and limbs of constant length. Plain
// C++17 over small_matrix.hpp; loops over the arrays of a Workspace (isa.hpp). Nothing is allocated, nothing raised.
//
// State of `capacity` tracks: mean (capacity, 6, n_padded), position and velocity; cov (capacity, 21, n_padded), lower
// triangles of their covariance; joints in the lanes.
//
// Compiled once for each instruction set, into a namespace of its own: FUSION_ISA (see isa.hpp), hence without a guard.

namespace fusion {
namespace FUSION_ISA {

// ---- prediction ------------------------------------------------------------------------------------------------------

// Predict joints dt_s ahead. The velocity decays with time constant T = velocity_decay_s (people stop) and is driven by
// white acceleration of spectral density q = acceleration (n_padded), m^2/s^3:
//
//   x' = F x,   P' = F P F^T + Q,   F = [[I, T (1 - e) I], [0, e I]],   e = exp(-dt / T),
//   Q = q [[dt^3 / 3, dt^2 / 2], [dt^2 / 2, dt]].
//
// The decay bounds the variance of the velocity: unseen, it tends to q T / 2.
// Source: Bar-Shalom, Li, Kirubarajan, Estimation with Applications to Tracking and Navigation (2001), section 6.2.2.
inline void predict(const Workspace& ws, const Int* rows, Size n_rows, double dt_s) {
  const Size n_padded = ws.n_padded, n_used = used_lanes(ws);
  const double decay_s = ws.velocity_decay_s;
  const double kept = std::exp(-dt_s / decay_s);
  const double reach = decay_s * (1.0 - kept);  // Distance that one unit of velocity still covers.
  for (Size r = 0; r < n_rows; ++r) {
    double* m = ws.mean + rows[r] * kState * n_padded;
    double* c = ws.cov + rows[r] * kStateCov * n_padded;
    for (Size first = 0; first < n_used; first += kLanes) {
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
        store(m + (3 + i) * n_padded + first, kept * v);
      }
      Symmetric<kState> out;
#pragma GCC unroll 3
      for (int i = 0; i < 3; ++i)
#pragma GCC unroll 3
        for (int j = 0; j < 3; ++j) {
          out(3 + i, j) = kept * (s(3 + i, j) + reach * s(3 + i, 3 + j));
          if (j > i) continue;
          out(i, j) = s(i, j) + reach * (s(3 + i, j) + s(3 + j, i)) + (reach * reach) * s(3 + i, 3 + j);
          out(3 + i, 3 + j) = (kept * kept) * s(3 + i, 3 + j);
        }
#pragma GCC unroll 3
      for (int i = 0; i < 3; ++i) {
        out(i, i) += q_pp;
        out(3 + i, i) += q_pv;
        out(3 + i, 3 + i) += q_vv;
      }
#pragma GCC unroll 21
      for (int i = 0; i < kStateCov; ++i) store(c + i * n_padded + first, out.v[i]);
    }
  }
}

// ---- the joints of one track -----------------------------------------------------------------------------------------

// The vertical axis of a body: mean place of its joints, weighted by how well each is known, and the variance of either
// coordinate. Joints that are vague because one camera saw them are off together, so their mean is no better than they.
inline void find_axis(const double* m, const double* c, Size n_padded, const double* axis_precision, double& x_out,
                      double& y_out, double& var_out) {
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

// The views in which a track was matched, and its detections there.
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

// Measurement of neighbouring joints by one view, linear in their place and in metres at the body: rows u and v by which the
// image moves as the joint moves, the view's innovation in the two directions of its image at the joint's predicted
// place, and its precision. Distance in the image times depth is linear in the place, so the rows stay as they are
// while the place is searched for.
struct Observation {
  Lane u[3], v[3], off_u, off_v, precision;
};
static_assert(sizeof(Observation) <= kObservation * sizeof(double), "lanes of an observation");

// Neighbouring joints of one track.
struct OwnLanes {
  const Workspace& ws;
  double *m, *c, *heights, *support;
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
  FUSION_INLINE void set_support(const Lane& lane) const { store(support + first, lane); }
};

// The same joint of as many tracks as there are lanes: the joints that a layout has beyond whole groups of lanes would fill
// a lane or two of a group of their own. The views are those in which any of the tracks was matched.
struct SharedLanes {
  const Workspace& ws;
  double *m[kLanes], *c[kLanes], *heights[kLanes], *support[kLanes];
  const Int* views;         // (n)
  const Int* detection_of;  // (n, kLanes), -1 for none
  Size n, joint = 0, width;
  double axes[3][kLanes];
  double tallies[kLanes];
  bool any_tally = false;

  SharedLanes(const Workspace& workspace, Size n_tracks) : ws(workspace), width(n_tracks) {}

  FUSION_INLINE void state(Lane& lane, int i) const { collect(lane, m, i * ws.n_padded + joint); }
  FUSION_INLINE void cov(Lane& lane, int i) const { collect(lane, c, i * ws.n_padded + joint); }
  FUSION_INLINE void height(Lane& lane) const { collect(lane, heights, joint); }
  FUSION_INLINE void table(Lane& lane, const double* by_joint) const { fill(lane, by_joint[joint]); }
  FUSION_INLINE Size n_views() const { return n; }
  FUSION_INLINE Size view(Size k) const { return Size(views[k]); }
  FUSION_INLINE void measured(Lane& lane, const float* of, Size k) const {
    const Int* d = detection_of + k * kLanes;
    lane = lanes_of<Lane>([&](Size i) { return value(of, d[i]); }, std::make_index_sequence<kLanes>());
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
  FUSION_INLINE void set_support(const Lane& lane) const { spread(lane, support, joint, width); }
};

// ---- update ----------------------------------------------------------------------------------------------------------

// What is known of a lane's width of joints before their update: state, covariance, and how noisy their measurements are.
struct Prediction {
  Lane state[kState];
  Symmetric<kState> cov;
  Lane body;   // Variance of the detector's joint about one point of the body, m^2.
  Lane jerky;  // Spectral density of the acceleration: the joint did not move evenly since a view looked.
  Lane noise;  // Factor on the detector's assumed variance, as learnt.

  template <class Lanes>
  FUSION_INLINE void read(const Workspace& ws, const Lanes& lanes) {
#pragma GCC unroll 6
    for (int i = 0; i < kState; ++i) lanes.state(state[i], i);
#pragma GCC unroll 21
    for (int i = 0; i < kStateCov; ++i) lanes.cov(cov.v[i], i);
    lanes.table(body, ws.body_var);
    lanes.table(jerky, ws.acceleration);
    lanes.table(noise, ws.noise);
    body *= noise;
  }

  // Precision of a view's measurement at the body: the detector's variance at that depth, the body's, the motion's, and
  // that of a camera in doubt.
  FUSION_INLINE Lane precision(const Lane& depth, const Lane& var, const Lane& seen, double dt, double doubt) const {
    const Lane none{};
    const Lane other = body + doubt + jerky * (std::fabs(dt * dt * dt) * (1.0 / 3.0));
    const Lane value = seen / (other + var * noise * (depth * depth));
    return depth > 0.05 ? value : none;
  }
};

// Normal equations of a joint's place: what some views measured, each with its weight.
struct NormalEquations {
  Symmetric<3> information{};
  Lane rhs[3] = {};

  FUSION_INLINE void add(const Observation& at, const Lane& w) {
#pragma GCC unroll 3
    for (int i = 0; i < 3; ++i) {
      const Lane wu = w * at.u[i], wv = w * at.v[i];
      // One fused instruction for each product, which a sum of two products added at once would not be.
      rhs[i] += wu * at.off_u;
      rhs[i] += wv * at.off_v;
#pragma GCC unroll 3
      for (int j = 0; j <= i; ++j) {
        information(i, j) += wu * at.u[j];
        information(i, j) += wv * at.v[j];
      }
    }
  }
};

// Linear measurements of all views at the predicted place, with the first step's normal equations, since that step begins
// there; returns the mean instant of the views, weighted by precision.
template <class Lanes>
FUSION_INLINE Lane linearise(const Workspace& ws, const Lanes& lanes, const Prediction& predicted, bool plain,
                             Observation* observations, NormalEquations& first) {
  const Lane(&state)[kState] = predicted.state;
  const double freedom = ws.degrees_of_freedom;
  Lane known{}, moment{};
  const Size n_views = lanes.n_views();
  for (Size k = 0; k < n_views; ++k) {
    const double* p = ws.camera_from_world + 12 * lanes.view(k);
    const double dt = ws.dt_s[lanes.view(k)];
    Lane zx, zy, var, seen;
    lanes.measured(zx, ws.x, k);
    lanes.measured(zy, ws.y, k);
    lanes.measured(var, ws.var, k);
    lanes.measured(seen, ws.seen, k);
    const Lane qx = state[0] + dt * state[3], qy = state[1] + dt * state[4], qz = state[2] + dt * state[5];
    const Lane depth = (Lane{} + p[11]) + p[8] * qx + p[9] * qy + p[10] * qz;
    Observation at;
#pragma GCC unroll 3
    for (int i = 0; i < 3; ++i) {
      at.u[i] = p[i] - zx * p[8 + i];
      at.v[i] = p[4 + i] - zy * p[8 + i];
    }
    at.off_u = zx * depth - p[3] - p[0] * qx - p[1] * qy - p[2] * qz;
    at.off_v = zy * depth - p[7] - p[4] * qx - p[5] * qy - p[6] * qz;
    at.precision = predicted.precision(depth, var, seen, dt, ws.doubt_var[lanes.view(k)]);
    known += at.precision;
    moment += dt * at.precision;
    observations[k] = at;
    const Lane distance_sq = (at.off_u * at.off_u + at.off_v * at.off_v) * at.precision;
    first.add(at, plain ? at.precision : (freedom + 2.0) / (freedom + distance_sq) * at.precision);
  }
  return known > 0.0 ? moment / known : Lane{};
}

// Precisions of all views at the depths of the place found so far: a birth's first guess may be decimetres off, and with
// it the depth that turns pixels into metres.
template <class Lanes>
FUSION_INLINE void reweigh(const Workspace& ws, const Lanes& lanes, const Prediction& predicted, const Lane (&step)[3],
                           Observation* observations) {
  const Size n_views = lanes.n_views();
  for (Size k = 0; k < n_views; ++k) {
    const double* p = ws.camera_from_world + 12 * lanes.view(k);
    const double dt = ws.dt_s[lanes.view(k)];
    Lane var, seen;
    lanes.measured(var, ws.var, k);
    lanes.measured(seen, ws.seen, k);
    Lane depth = Lane{} + p[11];
#pragma GCC unroll 3
    for (int i = 0; i < 3; ++i) depth += p[8 + i] * (predicted.state[i] + step[i] + dt * predicted.state[3 + i]);
    observations[k].precision = predicted.precision(depth, var, seen, dt, ws.doubt_var[lanes.view(k)]);
  }
}

// Weak priors from the body that the joints belong to: the floor under joints that touch it, the body's axis, and the
// joint's usual height.
struct BodyPrior {
  Lane on_floor, near_axis, near_height;  // precisions, 1/m^2
  Lane axis_x, axis_y, height;

  template <class Lanes>
  FUSION_INLINE void read(const Workspace& ws, const Lanes& lanes, double share) {
    Lane axis_var;
    lanes.axis(axis_x, axis_y, axis_var);
    lanes.table(on_floor, ws.floor_precision);
    lanes.table(near_axis, ws.axis_precision);
    lanes.table(near_height, ws.height_precision);
    lanes.height(height);
    near_axis *= share / (1.0 + axis_var * near_axis);
    near_height *= share;
  }

  FUSION_INLINE void add(const Lane (&state)[kState], Symmetric<3>& information, Lane (&rhs)[3]) const {
    information(2, 2) += on_floor + near_height;
    rhs[2] += near_height * (height - state[2]) - on_floor * state[2];
    information(0, 0) += near_axis;
    information(1, 1) += near_axis;
    rhs[0] += near_axis * (axis_x - state[0]);
    rhs[1] += near_axis * (axis_y - state[1]);
  }
};

// The place of a joint at the views' mean instant, relative to its prediction, with its covariance and the sum of the
// views' robust weights.
struct PlaceUpdate {
  Lane step[3] = {};
  Symmetric<3> cov;
  Lane weight_sum{};
};

// Iteratively reweighted least squares for that place. With the Student-t weights of nu = degrees_of_freedom
//
//   w_k = (nu + 2) / (nu + d_k^2),   d_k^2 = precision_k |off_k - J_k step|^2,
//   (P^-1 + sum_k w_k precision_k J_k^T J_k + B) step = sum_k w_k precision_k J_k^T off_k + b,
//
// where J_k are the rows of view k, P is the prior covariance of the place and B, b are the body's. A view that saw
// something else (an occluder's joint, left for right) is outvoted. In the first n_plain steps all weights are one.
// Source: Lange, Little, Taylor, Robust statistical modeling using the t distribution (1989).
// The first step's equations come from `linearise`; there are at least two steps.
template <class Lanes>
FUSION_INLINE void search_place(const Workspace& ws, const Lanes& lanes, const Prediction& predicted,
                                const Symmetric<3>& prior, const BodyPrior& body, const Measurement& how,
                                NormalEquations& normal, Observation* observations, PlaceUpdate& found) {
  const Lane none{};
  const double freedom = ws.degrees_of_freedom;
  const Size n_views = lanes.n_views();
  Lane(&step)[3] = found.step;
  for (Int turn = 0; turn < how.n_steps; ++turn) {
    const bool plain = turn < how.n_plain, last = turn == how.n_steps - 1;
    if (turn > 0) {
      if (how.n_plain > 0) reweigh(ws, lanes, predicted, step, observations);
      normal = NormalEquations{};
      for (Size k = 0; k < n_views; ++k) {
        const Observation& at = observations[k];
        const Lane off_u = at.off_u - at.u[0] * step[0] - at.u[1] * step[1] - at.u[2] * step[2];
        const Lane off_v = at.off_v - at.v[0] * step[0] - at.v[1] * step[1] - at.v[2] * step[2];
        const Lane distance_sq = (off_u * off_u + off_v * off_v) * at.precision;
        const Lane weight = plain ? Lane{} + 1.0 : (freedom + 2.0) / (freedom + distance_sq);
        if (last) {
          found.weight_sum += at.precision > 0.0 ? weight : none;
          lanes.residual(k, distance_sq < 25.0 ? distance_sq : none + 25.0, at.precision > 0.0 ? none + 1.0 : none);
        }
        normal.add(at, weight * at.precision);
      }
    }
#pragma GCC unroll 6
    for (int i = 0; i < 6; ++i) normal.information.v[i] += prior.v[i];
    body.add(predicted.state, normal.information, normal.rhs);
    invert(normal.information, found.cov);
#pragma GCC unroll 3
    for (int i = 0; i < 3; ++i)
      step[i] = found.cov(i, 0) * normal.rhs[0] + found.cov(i, 1) * normal.rhs[1] + found.cov(i, 2) * normal.rhs[2];
  }
}

// Learn how much noisier the detector is than assumed, by the expectation step of an estimate of variance: the residuals
// about the joint as all views place it, plus the joint's own uncertainty across the line of sight.
template <class Lanes>
FUSION_INLINE void learn_noise(const Workspace& ws, const Lanes& lanes, const Prediction& predicted,
                               const PlaceUpdate& found, const Observation* observations) {
  const Lane none{};
  const double freedom = ws.degrees_of_freedom;
  const Size n_views = lanes.n_views();
  Lane total{}, count{};
  for (Size k = 0; k < n_views; ++k) {
    const Observation& at = observations[k];
    Lane off_u = at.off_u, off_v = at.off_v, across{};
#pragma GCC unroll 3
    for (int i = 0; i < 3; ++i) {
      off_u -= at.u[i] * found.step[i];
      off_v -= at.v[i] * found.step[i];
#pragma GCC unroll 3
      for (int j = 0; j < 3; ++j) across += found.cov(i, j) * (at.u[i] * at.u[j] + at.v[i] * at.v[j]);
    }
    const Lane distance_sq = (off_u * off_u + off_v * off_v) * at.precision;
    total += (freedom + 2.0) / (freedom + distance_sq) * (distance_sq + across * at.precision);
    count += at.precision > 0.0 ? none + 2.0 : none;
  }
  lanes.add_noise(ws.noise_share * predicted.noise * total, count);
}

// Update joints with all that was matched: the most probable state given prediction and measurements.
//
// Every view looks at its own instant. Together the views of a joint measure its place at their mean instant t, weighted
// by precision; before and after t the predicted velocity carries it. That is a measurement z = H x with H = [I, t I], so
// the search has three dimensions, and the whole state follows from its covariance with the place:
//
//   K = P H^T (H P H^T)^-1,   x' = x + K step,   P' = P - K (H P H^T - C) K^T,
//
// where C is the covariance of the place after the search.
template <class Lanes>
inline void update_joints(const Workspace& ws, const Lanes& lanes, const Measurement& how) {
  Observation* observations = reinterpret_cast<Observation*>(ws.observations);
  const Lane none{};
  Prediction predicted;
  predicted.read(ws, lanes);
  const Symmetric<kState>& s = predicted.cov;
  NormalEquations normal;
  const Lane instant = linearise(ws, lanes, predicted, how.n_plain > 0, observations, normal);
  // P H^T and H P H^T.
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
  BodyPrior body;
  body.read(ws, lanes, how.share);
  PlaceUpdate found;
  found.cov = before;
  search_place(ws, lanes, predicted, prior, body, how, normal, observations, found);
  if (lanes.tallied()) learn_noise(ws, lanes, predicted, found, observations);
  Lane gain[kState][3], taught[kState][3];
  Symmetric<3> less;
#pragma GCC unroll 6
  for (int i = 0; i < 6; ++i) less.v[i] = before.v[i] - found.cov.v[i];
#pragma GCC unroll 6
  for (int i = 0; i < kState; ++i)
#pragma GCC unroll 3
    for (int j = 0; j < 3; ++j)
      gain[i][j] = with[i][0] * prior(0, j) + with[i][1] * prior(1, j) + with[i][2] * prior(2, j);
  Lane height = body.height;
#pragma GCC unroll 6
  for (int i = 0; i < kState; ++i) {
    const Lane now =
        predicted.state[i] + gain[i][0] * found.step[0] + gain[i][1] * found.step[1] + gain[i][2] * found.step[2];
    if (i == 2) {
      // A usual height is learnt while it is certain: within 10 cm, and about two views support it.
      const LaneMask certain = (found.cov(2, 2) < 0.01) & (found.weight_sum > 1.5);
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
  lanes.set_support(found.weight_sum);
  lanes.set_height(height);
}

// ---- limbs -----------------------------------------------------------------------------------------------------------

// Rows of joints of a lane's width of tracks: state, covariance, support.
constexpr int kParts = kState + kStateCov + 1;

// The states of a lane's width of tracks with joints side by side (rows) become lanes with tracks side by side, and back: a limb reads
// and writes 54 numbers of each track.
inline void turn_tracks(const Workspace& ws, double* const (&rows)[kParts][kLanes]) {
  for (int part = 0; part < kParts; ++part)
    for (Size joint = 0; joint < used_lanes(ws); joint += kLanes) {
      Lane block[kLanes];
#pragma GCC unroll 8
      for (Size k = 0; k < kLanes; ++k) load(block[k], rows[part][k] + joint);
      transpose(block);
#pragma GCC unroll 8
      for (Size k = 0; k < kLanes; ++k) store(ws.turned + (part * ws.n_padded + joint + k) * kLanes, block[k]);
    }
}

inline void turn_back(const Workspace& ws, double* const (&rows)[kParts][kLanes], Size width) {
  for (int part = 0; part < kState + kStateCov; ++part)
    for (Size joint = 0; joint < used_lanes(ws); joint += kLanes) {
      Lane block[kLanes];
#pragma GCC unroll 8
      for (Size k = 0; k < kLanes; ++k) load(block[k], ws.turned + (part * ws.n_padded + joint + k) * kLanes);
      transpose(block);
#pragma GCC unroll 8
      for (Size k = 0; k < kLanes; ++k)
        if (k < width) store(rows[part][k] + joint, block[k]);
    }
}

// One limb of a lane's width of tracks: the length `usual` is learnt where it is well seen, and measured everywhere.
inline void hold_limb(const Workspace& ws, const Int* joints, double learning, Lane& usual) {
  const Size n_padded = ws.n_padded;
  const double sd_m = ws.limb_sd_m, own_var = ws.limb_own_var;
  Lane state[2][kState], support[2];
  Symmetric<kState> s[2];
  for (int end = 0; end < 2; ++end) {
    const double* at = ws.turned + joints[end] * kLanes;
#pragma GCC unroll 6
    for (int i = 0; i < kState; ++i) load(state[end][i], at + i * n_padded * kLanes);
#pragma GCC unroll 21
    for (int i = 0; i < kStateCov; ++i) load(s[end].v[i], at + (kState + i) * n_padded * kLanes);
    load(support[end], at + (kState + kStateCov) * n_padded * kLanes);
  }
  const Lane n[3] = {state[1][0] - state[0][0], state[1][1] - state[0][1], state[1][2] - state[0][2]};
  const Lane length = root(n[0] * n[0] + n[1] * n[1] + n[2] * n[2]);
  const LaneMask long_enough = length > 0.01;  // Else the limb has no direction.
  const Lane shortening = long_enough ? 1.0 / length : Lane{};
  // Covariance of each joint's whole state with its position along the limb, then the variance of that position.
  Lane along[2][kState], var[2];
  for (int end = 0; end < 2; ++end) {
#pragma GCC unroll 6
    for (int row = 0; row < kState; ++row)
      along[end][row] = (s[end](row, 0) * n[0] + s[end](row, 1) * n[1] + s[end](row, 2) * n[2]) * shortening;
    var[end] = (along[end][0] * n[0] + along[end][1] * n[1] + along[end][2] * n[2]) * shortening;
  }
  const LaneMask certain = (support[0] > 1.5) & (support[1] > 1.5) & (var[0] + var[1] < 0.005) & long_enough;
  usual += (certain ? Lane{} + learning : Lane{}) * (length - usual);
  // Where both joints of a limb are vague they are off together, since one camera does not measure depth, and the limb's
  // length does not correct that: it corrects the variance in which they differ, and some centimetres of each.
  const Lane lesser = var[0] < var[1] ? var[0] : var[1];
  const Lane common = lesser > own_var ? lesser - own_var : Lane{};
  const Lane inverse = 1.0 / (var[0] + var[1] - 2.0 * common + sd_m * sd_m);
  const Lane push = (usual - length) * inverse;
  for (int end = 0; end < 2; ++end) {
    double* at = ws.turned + joints[end] * kLanes;
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
}

// Limbs keep their length: the usual length of each limb, learnt while both of its joints are well seen, is a measurement
// of the distance between them, by one step of an extended Kalman filter. The less certain joint moves more, so that a
// hidden hand stays within reach of its elbow. Limbs of one track share joints and are updated one after the other; eight
// tracks walk side by side.
//
// rows (n_rows); support (n_rows, n_padded).
inline void hold_limbs(const Workspace& ws, const Int* rows, Size n_rows, double* support, double learning) {
  const Size n_padded = ws.n_padded, n_limbs = ws.n_limbs;
  for (Size first = 0; first < n_rows; first += kLanes) {
    const Size width = n_rows - first < kLanes ? n_rows - first : kLanes;
    double* from[kParts][kLanes];
    for (Size k = 0; k < kLanes; ++k) {
      const Size i = first + (k < width ? k : 0);
      for (int part = 0; part < kState; ++part) from[part][k] = ws.mean + (rows[i] * kState + part) * n_padded;
      for (int part = 0; part < kStateCov; ++part)
        from[kState + part][k] = ws.cov + (rows[i] * kStateCov + part) * n_padded;
      from[kState + kStateCov][k] = support + i * n_padded;
    }
    turn_tracks(ws, from);
    for (Size limb = 0; limb < n_limbs; ++limb) {
      Lane usual{};
      for (Size k = 0; k < width; ++k) usual[k] = ws.limb_lengths_m[rows[first + k] * n_limbs + limb];
      hold_limb(ws, ws.limbs + 2 * limb, learning, usual);
      for (Size k = 0; k < width; ++k) ws.limb_lengths_m[rows[first + k] * n_limbs + limb] = usual[k];
    }
    turn_back(ws, from, width);
  }
}

// ---- measurement of all tracks ---------------------------------------------------------------------------------------

// The views in which any of up to a lane's width of tracks was matched, with each track's detection there; for SharedLanes.
// held (width): indices of the tracks in rows of detection_of. Returns the number of views.
inline Size gather_views(const Workspace& ws, const Int* detection_of, const Int* held, Size width, Int* views,
                         Int* detections) {
  Size n = 0;
  for (Size view = 0; view < ws.n_views; ++view) {
    Int together = -1;  // Stays negative only where all are: the sign bit of their conjunction.
    for (Size k = 0; k < kLanes; ++k) {
      const Int d = k < width ? detection_of[Size(held[k]) * ws.n_views + view] : -1;
      detections[n * kLanes + k] = d;
      together &= d;
    }
    if (together >= 0) views[n++] = Int(view);
  }
  return n;
}

// Update tracks with their matched detections, and hold their limbs. rows (n_rows); detection_of (n_rows, n_views). A
// track without a detection keeps its prediction.
inline void measure(const Workspace& ws, const Int* rows, const Int* detection_of, Size n_rows,
                    const Measurement& how) {
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
  // Gathering a joint of a lane's width of tracks costs half as much again as updating it.
  const bool shared = !how.sums && 3 * n_rest * ((n_held + kLanes - 1) / kLanes) < 2 * n_held;
  const Size n_own = shared ? n_whole : used_lanes(ws);
  for (Size first = 0; first < n_held; first += kLanes) {
    const Size width = n_held - first < kLanes ? n_held - first : kLanes;
    SharedLanes rest(ws, width);
    for (Size k = 0; k < kLanes; ++k) {
      const Size i = first + (k < width ? k : 0);
      const Int row = held[i];
      const Int* of = detection_of + Size(index[i]) * ws.n_views;
      double *m = ws.mean + row * kState * n_padded, *c = ws.cov + row * kStateCov * n_padded;
      rest.m[k] = m;
      rest.c[k] = c;
      rest.heights[k] = ws.heights_m + row * n_padded;
      rest.support[k] = ws.support + i * n_padded;
      rest.tallies[k] = 0.0;
      if (k >= width) {
        for (int a = 0; a < 3; ++a) rest.axes[a][k] = rest.axes[a][0];
        continue;
      }
      const Matched matched = matched_views(ws, of);
      find_axis(m, c, n_padded, ws.axis_precision, rest.axes[0][k], rest.axes[1][k], rest.axes[2][k]);
      // One view alone always fits, so noise is learnt only from tracks that two views or more saw.
      const bool tally = how.tally >= 0 && matched.n >= 2 && index[i] % ws.noise_every == how.tally;
      rest.tallies[k] = tally ? 1.0 : 0.0;
      rest.any_tally |= tally;
      double* sums = how.sums ? how.sums + Size(index[i]) * ws.n_views : nullptr;
      double* counts = how.sums ? how.counts + Size(index[i]) * ws.n_views : nullptr;
      OwnLanes own{ws,
                   m,
                   c,
                   rest.heights[k],
                   rest.support[k],
                   matched,
                   0,
                   rest.axes[0][k],
                   rest.axes[1][k],
                   rest.axes[2][k],
                   sums,
                   counts,
                   tally};
      for (Size joint = 0; joint < n_own; joint += kLanes) {
        own.first = joint;
        update_joints(ws, own, how);
      }
    }
    if (!shared) continue;
    Int *views = ws.shared, *detections = ws.shared + ws.n_views;
    rest.n = gather_views(ws, detection_of, index + first, width, views, detections);
    rest.views = views;
    rest.detection_of = detections;
    for (Size joint = n_whole; joint < ws.n_joints; ++joint) {
      rest.joint = joint;
      update_joints(ws, rest, how);
    }
  }
  if (ws.n_limbs) hold_limbs(ws, held, n_held, ws.support, how.learning);
}

}  // namespace FUSION_ISA
}  // namespace fusion
