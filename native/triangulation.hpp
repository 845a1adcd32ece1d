// From what cameras saw to points and people in the world: undistortion, linear triangulation, and the filter of every
// joint. Plain C++17 over small_matrix.hpp; loops over arrays that the caller owns, nothing kept, nothing raised.
//
// Image coordinates here are normalised: on the plane one unit in front of the camera, undistorted.
//
// Compiled once for each instruction set, into a namespace of its own: FUSION_ISA (see isa.hpp), hence without a guard.
#include "small_matrix.hpp"

namespace fusion {
namespace FUSION_ISA {

// Intrinsics as the kernels read them: fx, fy, cx, cy, then OpenCV's k1, k2, p1, p2, k3.
constexpr std::size_t kIntrinsics = 9;
// Joint states: position and velocity, and the lower triangle of their covariance.
constexpr int kState = 6;
constexpr int kStateCov = Symmetric<kState>::kSize;

// No lens that OpenCV's model describes sees further off its axis: 84 degrees. Such a keypoint is a number gone wrong.
constexpr double kTangentMax = 10.0;

enum Status : std::int8_t { ok = 0, underconstrained = 1, behind_camera = 2 };

// ---- the lens --------------------------------------------------------------------------------------------------------

// Groups of lanes that walk side by side: what one waits for, the others fill.
constexpr std::size_t kGroups = 4;

// Eight pixels of one camera on their way to normalised coordinates, by Newton's method on OpenCV's distortion model,
// which is a contraction only near the centre as a fixed-point iteration.
struct Undistortion {
  Lane x, y, xd, yd;

  FUSION_INLINE void begin(const double* lens, const Lane& u_px, const Lane& v_px) {
    x = xd = (u_px - lens[2]) * (1.0 / lens[0]);
    y = yd = (v_px - lens[3]) * (1.0 / lens[1]);
  }

  // Returns the lanes that still moved.
  FUSION_INLINE LaneMask step(double k1, double k2, double p1, double p2, double k3) {
    const Lane r2 = x * x + y * y;
    const Lane radial = 1.0 + r2 * (k1 + r2 * (k2 + r2 * k3));
    const Lane slope = 2.0 * (k1 + r2 * (2.0 * k2 + r2 * (3.0 * k3)));  // d radial / d x = slope * x
    const Lane fx = x * radial + 2.0 * p1 * x * y + p2 * (r2 + 2.0 * x * x) - xd;
    const Lane fy = y * radial + p1 * (r2 + 2.0 * y * y) + 2.0 * p2 * x * y - yd;
    const Lane a = radial + x * x * slope + 2.0 * p1 * y + 6.0 * p2 * x;
    const Lane b = x * y * slope + 2.0 * p1 * x + 2.0 * p2 * y;
    const Lane d = radial + y * y * slope + 6.0 * p1 * y + 2.0 * p2 * x;
    const Lane det = a * d - b * b;
    // Beyond the model's turning point there is no answer; stay at the last good one.
    const Lane inverse = det > 1e-6 ? 1.0 / det : Lane{};
    const Lane dx = (d * fx - b * fy) * inverse, dy = (a * fy - b * fx) * inverse;
    x -= dx;
    y -= dy;
    return (dx * dx + dy * dy) > 1e-12;
  }
};

// Five steps reach 1e-12 wherever the model is invertible. Each doubles the number of right digits, so where none moved
// by more than 1e-6, the next would change nothing that matters.
FUSION_INLINE void undistort_groups(const double* lens, Undistortion* groups, std::size_t n_groups) {
  const double k1 = lens[4], k2 = lens[5], p1 = lens[6], p2 = lens[7], k3 = lens[8];
  if (k1 == 0.0 && k2 == 0.0 && p1 == 0.0 && p2 == 0.0 && k3 == 0.0) return;
  for (int step = 0; step < 5; ++step) {
    LaneMask moving{};
    for (std::size_t g = 0; g < n_groups; ++g) moving |= groups[g].step(k1, k2, p1, p2, k3);
    if (step > 0 && !any(moving)) break;
  }
}

// points_px, out (n_points, 2) of one camera.
inline void undistort(const double* lens, const double* points_px, std::size_t n_points, double* out) {
  for (std::size_t first = 0; first < n_points; first += kGroups * kLanes) {
    const std::size_t width = n_points - first < kGroups * kLanes ? n_points - first : kGroups * kLanes;
    Undistortion groups[kGroups];
    const std::size_t n_groups = (width + kLanes - 1) / kLanes;
    for (std::size_t g = 0; g < n_groups; ++g) {
      Lane u{}, v{};
      for (std::size_t k = 0; k < kLanes && g * kLanes + k < width; ++k) {
        u[k] = points_px[2 * (first + g * kLanes + k)];
        v[k] = points_px[2 * (first + g * kLanes + k) + 1];
      }
      groups[g].begin(lens, u, v);
    }
    undistort_groups(lens, groups, n_groups);
    for (std::size_t g = 0; g < n_groups; ++g)
      for (std::size_t k = 0; k < kLanes && g * kLanes + k < width; ++k) {
        const double* pixel = points_px + 2 * (first + g * kLanes + k);
        double* to = out + 2 * (first + g * kLanes + k);
        // Where a pixel is unknown, the steps above stood still; what they stood at is not an answer.
        const bool known = !std::isnan(pixel[0]) && !std::isnan(pixel[1]);
        to[0] = known ? groups[g].x[k] : std::nan("");
        to[1] = known ? groups[g].y[k] : std::nan("");
      }
  }
}

// Detections as the tracker reads them: normalised coordinates, variance of each of the two, and 1 or 0 for seen; joints
// padded to n_padded lanes. Returns the number of keypoints that claim to be seen but are not
// finite, or are where no lens looks.
//
// start (n_views + 1): first detection of each view. All lanes of a detection take Newton's steps together, since a step
// is one long chain of operations that depend on each other and three chains run in the time of one.
inline std::int64_t prepare(const float* keypoints, const std::int64_t* start, const double* lenses,
                                          std::size_t n_views, std::size_t n_joints, std::size_t n_padded,
                                          double sd_px, double score_min, double* x, double* y, double* var,
                                          double* seen) {
  Lane n_broken{};
  const Lane one = Lane{} + 1.0, none{};
  for (std::size_t view = 0; view < n_views; ++view) {
    const double* lens = lenses + kIntrinsics * view;
    const double sure_var = sd_px * sd_px / (lens[0] * lens[1]);
    for (std::int64_t d = start[view]; d < start[view + 1]; ++d) {
      for (std::size_t chunk = 0; chunk < n_padded; chunk += kGroups * kLanes) {
        double read[3][kGroups * kLanes];  // u, v, score; what pads is never claimed to be seen.
        Undistortion groups[kGroups];
        LaneMask used[kGroups];
        Lane certainty[kGroups];
        const std::size_t n_here = n_padded - chunk < kGroups * kLanes ? n_padded - chunk : kGroups * kLanes;
        const std::size_t n_real = chunk >= n_joints ? 0 : n_joints - chunk < n_here ? n_joints - chunk : n_here;
        const float* point = keypoints + 3 * (d * n_joints + chunk);
        for (std::size_t j = 0; j < n_real; ++j)
          for (int i = 0; i < 3; ++i) read[i][j] = point[3 * j + i];
        for (std::size_t j = n_real; j < n_here; ++j) read[0][j] = read[1][j] = read[2][j] = 0.0;
        const std::size_t n_groups = n_here / kLanes;
        for (std::size_t g = 0; g < n_groups; ++g) {
          Lane u, v, score;
          load(u, read[0] + g * kLanes);
          load(v, read[1] + g * kLanes);
          load(score, read[2] + g * kLanes);
          const LaneMask claimed = ~(score <= 0.0);
          const LaneMask finite = (u - u == none) & (v - v == none) & (score - score == none);
          n_broken += claimed & ~finite ? one : none;
          used[g] = claimed & finite & (score >= score_min);
          // Detectors localise a point they are unsure of worse: deviation grows with the inverse of the score.
          certainty[g] = used[g] ? (score < 1.0 ? score : one) : one;
          groups[g].begin(lens, used[g] ? u : none + lens[2], used[g] ? v : none + lens[3]);
        }
        undistort_groups(lens, groups, n_groups);
        for (std::size_t g = 0; g < n_groups; ++g) {
          const Lane gx = groups[g].x, gy = groups[g].y;
          const LaneMask inside = (gx < kTangentMax) & (gx > -kTangentMax) & (gy < kTangentMax) & (gy > -kTangentMax);
          n_broken += used[g] & ~inside ? one : none;
          used[g] &= inside;
          const std::size_t to = d * n_padded + chunk + g * kLanes;
          store(x + to, used[g] ? gx : none);
          store(y + to, used[g] ? gy : none);
          store(var + to, used[g] ? sure_var / (certainty[g] * certainty[g]) : one);
          store(seen + to, used[g] ? one : none);
        }
      }
    }
  }
  return static_cast<std::int64_t>(sum(n_broken));
}

// ---- matching --------------------------------------------------------------------------------------------------------

// Layouts have at most this many groups of joints.
constexpr std::size_t kJointGroups = 8;
// Tracks, and detections of a view, whose boxes are on the stack at a time.
constexpr std::size_t kBoxes = 64;

// What is nearer than this is not in front of a camera, metres.
constexpr double kNearest = 0.05;

// Where a person's joints may be: a box in the world, how fast any joint goes, and the largest variance of any.
struct Reach {
  double middle[3], half[3], speed[3], var;
};

// Part of a view's image, as the joints that were seen and the cap on their distance span it.
struct Window {
  double left, right, top, bottom;

  bool apart(const Window& other) const {
    return right < other.left || left > other.right || bottom < other.top || top > other.bottom;
  }
};

FUSION_INLINE Window window_of(const double* x, const double* y, const double* var, const double* seen,
                               std::size_t n_padded, double cap) {
  const Lane far = Lane{} + 1e300;
  Lane left = far, right = -far, top = far, bottom = -far, largest{};
  for (std::size_t j = 0; j < n_padded; j += kLanes) {
    Lane px, py, noise, weight;
    load(px, x + j);
    load(py, y + j);
    load(noise, var + j);
    load(weight, seen + j);
    const LaneMask used = weight != 0.0;
    left = used & (px < left) ? px : left;
    right = used & (px > right) ? px : right;
    top = used & (py < top) ? py : top;
    bottom = used & (py > bottom) ? py : bottom;
    largest = used & (noise > largest) ? noise : largest;
  }
  const double reach = std::sqrt(cap * highest(largest));
  return {-highest(-left) - reach, highest(right) + reach, -highest(-top) - reach, highest(bottom) + reach};
}

FUSION_INLINE Reach reach_of(const double* m, const double* c, const LaneMask* used, std::size_t n_padded) {
  Reach reach;
  for (int i = 0; i < 3; ++i) {
    Lane low = Lane{} + 1e300, high = Lane{} - 1e300, fast{};
    for (std::size_t j = 0; j < n_padded; j += kLanes) {
      Lane place, speed;
      load(place, m + i * n_padded + j);
      load(speed, m + (3 + i) * n_padded + j);
      speed = speed < 0.0 ? -speed : speed;
      const LaneMask mask = used[j / kLanes];
      low = mask & ~(place >= low) ? place : low;
      high = mask & ~(place <= high) ? place : high;
      fast = mask & (speed > fast) ? speed : fast;
    }
    const double lowest = -highest(-low), top = highest(high);
    reach.middle[i] = 0.5 * (lowest + top);
    reach.half[i] = 0.5 * (top - lowest);
    reach.speed[i] = highest(fast);
  }
  Lane var{};
  for (std::size_t j = 0; j < n_padded; j += kLanes) {
    Lane xx, yy, zz;
    load(xx, c + j);
    load(yy, c + 2 * n_padded + j);
    load(zz, c + 5 * n_padded + j);
    const Lane trace = xx + yy + zz;
    var = used[j / kLanes] & (trace > var) ? trace : var;
  }
  reach.var = highest(var);
  return reach;
}

// The part of a view's image in which a person's joints, and all that the cap reaches, must lie: none behind the camera;
// so near to it, or partly behind it, that may be anywhere; so it is for what is not a number.
FUSION_INLINE Window window_of(const Reach& reach, const double* p, double dt, double body_var, double cap,
                               double var_max) {
  const double infinite = 1e300;
  double half[3], depth = p[11], deep = 0.0;
  for (int i = 0; i < 3; ++i) {
    half[i] = reach.half[i] + std::fabs(dt) * reach.speed[i];
    depth += p[8 + i] * reach.middle[i];
    deep += std::fabs(p[8 + i]) * half[i];
  }
  const double near = depth - deep;
  if (depth + deep < kNearest) return {infinite, -infinite, infinite, -infinite};
  if (!(near > 0.2)) return {-infinite, infinite, -infinite, infinite};
  double middle[2], spread[2];
  for (int row = 0; row < 2; ++row) {
    const double* q = p + 4 * row;
    middle[row] = (q[0] * reach.middle[0] + q[1] * reach.middle[1] + q[2] * reach.middle[2] + q[3]) / depth;
    spread[row] = 0.0;
    for (int i = 0; i < 3; ++i) spread[row] += std::fabs(q[i] - middle[row] * p[8 + i]) * half[i];
    spread[row] /= near;
  }
  const double u = std::fabs(middle[0]) + spread[0], v = std::fabs(middle[1]) + spread[1];
  const double vague = reach.var * (1.0 + 0.5 * (u * u + v * v));
  const double blur = std::sqrt(cap * (body_var + (vague < var_max ? vague : var_max))) / near;
  return {middle[0] - spread[0] - blur, middle[0] + spread[0] + blur, middle[1] - spread[1] - blur,
          middle[1] + spread[1] + blur};
}

// Mean capped squared distance, in standard deviations, from every predicted person to every detection.
//
// A person's joints are moved to the instant of the view (dt_s before the state's), projected, and compared. Uncertain
// joints count less, but a logarithm charges for the uncertainty, so a vague track cannot take what a certain one
// explains as well. No prediction may be vaguer than var_max (m^2): whoever was out of sight for long does not reach
// across the room for a stranger's detection.
//
// Most people are nowhere near most detections of a camera. Where the windows of the two are apart, every joint would
// cost the cap, which no gate lets through, so the pair costs `never`.
//
// Detections of view v are start[v] .. start[v + 1] - 1; out (n_rows, n_detections), every cell written.
inline void costs(const double* camera_from_world, const double* dt_s, const std::int64_t* start,
                  const Detections& detections, const double* mean, const double* cov, const std::int64_t* rows,
                  std::size_t n_views, std::size_t n_rows, std::size_t n_padded, const double* body_var, double cap,
                  double joints_min, double var_max, double never, double* out) {
  const std::size_t n_detections = start[n_views], n_groups = n_padded / kLanes;
  for (std::size_t cell = 0; cell < n_rows * n_detections; ++cell) out[cell] = never;
  // Joints that nobody saw, as those that pad, have no say.
  LaneMask used[kJointGroups] = {};
  Lane body_largest{};
  for (std::size_t g = 0; g < n_groups; ++g) {
    Lane body, weight;
    load(body, body_var + g * kLanes);
    for (std::size_t d = 0; d < n_detections; ++d) {
      load(weight, detections.seen + d * n_padded + g * kLanes);
      used[g] |= weight != 0.0;
    }
    body_largest = used[g] & (body > body_largest) ? body : body_largest;
  }
  const double body_most = highest(body_largest);
  for (std::size_t first_track = 0; first_track < n_rows; first_track += kBoxes) {
    const std::size_t n_tracks = n_rows - first_track < kBoxes ? n_rows - first_track : kBoxes;
    Reach reaches[kBoxes];
    for (std::size_t t = 0; t < n_tracks; ++t) {
      const std::int64_t row = rows[first_track + t];
      reaches[t] = reach_of(mean + row * kState * n_padded, cov + row * kStateCov * n_padded, used, n_padded);
    }
    for (std::size_t view = 0; view < n_views; ++view) {
      const double* p = camera_from_world + 12 * view;
      const double dt = dt_s[view];
      for (std::int64_t first = start[view]; first < start[view + 1]; first += kBoxes) {
        const std::int64_t n_left = start[view + 1] - first;
        const std::int64_t n_here = n_left < static_cast<std::int64_t>(kBoxes) ? n_left : kBoxes;
        Window windows[kBoxes];
        for (std::int64_t k = 0; k < n_here; ++k) {
          const std::size_t at = (first + k) * n_padded;
          windows[k] = window_of(detections.x + at, detections.y + at, detections.var + at, detections.seen + at,
                                 n_padded, cap);
        }
        for (std::size_t t = 0; t < n_tracks; ++t) {
          const Window window = window_of(reaches[t], p, dt, body_most, cap, var_max);
          const double* m = mean + rows[first_track + t] * kState * n_padded;
          const double* c = cov + rows[first_track + t] * kStateCov * n_padded;
          Lane u[kJointGroups], v[kJointGroups], spread[kJointGroups], body[kJointGroups];
          bool projected = false;
          for (std::int64_t k = 0; k < n_here; ++k) {
            if (windows[k].apart(window)) continue;
            if (!projected) {
              projected = true;
              Lane in_front{};
              for (std::size_t g = 0; g < n_groups; ++g) {
                Lane s[kState], e[6], own;
#pragma GCC unroll 6
                for (int i = 0; i < kState; ++i) load(s[i], m + i * n_padded + g * kLanes);
#pragma GCC unroll 6
                for (int i = 0; i < 6; ++i) load(e[i], c + i * n_padded + g * kLanes);
                load(own, body_var + g * kLanes);
                const Lane qx = s[0] + dt * s[3], qy = s[1] + dt * s[4], qz = s[2] + dt * s[5];
                Lane depth = p[8] * qx + p[9] * qy + p[10] * qz + p[11];
                in_front += used[g] ? depth - kNearest : Lane{};
                at_least(depth, kNearest);
                const Lane inverse = 1.0 / depth;
                u[g] = (p[0] * qx + p[1] * qy + p[2] * qz + p[3]) * inverse;
                v[g] = (p[4] * qx + p[5] * qy + p[6] * qz + p[7]) * inverse;
                // Mean variance of the two image coordinates: rows of the Jacobian times covariance times itself.
                Lane across{};
#pragma GCC unroll 2
                for (int i = 0; i < 2; ++i) {
                  const Lane w = i == 0 ? u[g] : v[g];
                  const Lane jx = p[4 * i] - w * p[8], jy = p[4 * i + 1] - w * p[9], jz = p[4 * i + 2] - w * p[10];
                  across += jx * (e[0] * jx + 2.0 * (e[1] * jy + e[3] * jz));
                  across += jy * (e[2] * jy + 2.0 * e[4] * jz) + e[5] * jz * jz;
                }
                const Lane vague = 0.5 * across < var_max ? 0.5 * across : Lane{} + var_max;
                body[g] = own * inverse * inverse;
                spread[g] = (own + vague) * inverse * inverse;
              }
              if (!(sum(in_front) > 0.0)) break;
            }
            Lane total{}, n_seen{}, var_sum{}, wide_sum{};
            for (std::size_t g = 0; g < n_groups; ++g) {
              const std::size_t at = (first + k) * n_padded + g * kLanes;
              Lane px, py, noise, seen;
              load(px, detections.x + at);
              load(py, detections.y + at);
              load(noise, detections.var + at);
              load(seen, detections.seen + at);
              const Lane du = px - u[g], dv = py - v[g];
              const Lane wide = noise + spread[g];
              const Lane distance = (du * du + dv * dv) / wide;
              total += seen * (distance < cap ? distance : Lane{} + cap);
              n_seen += seen;
              var_sum += seen * (noise + body[g]);
              wide_sum += seen * wide;
            }
            const double count = sum(n_seen);
            if (!(count >= joints_min)) continue;
            const double vaguer = sum(wide_sum) / sum(var_sum);
            const double value = sum(total) / count + std::log(vaguer > 1.0 ? vaguer : 1.0);
            // False for what is not a number, which would send the assignment searching for ever.
            if (value < never) out[(first_track + t) * n_detections + first + k] = value;
          }
        }
      }
    }
  }
}

// ---- linear triangulation --------------------------------------------------------------------------------------------

// Eight points on their way from views to the world: the unit 4-vector that the stacked homogeneous equations x P3 - P1
// and y P3 - P2 send nearest to zero, found as the smallest eigenvector of their normal matrix by inverse iteration.
constexpr int kInverseSteps = 3;

struct PointGroup {
  Ldlt<4> factor;
  Lane v[4];
  Lane n_seen;

  // from (n_views, 2, n_points); n_points is the distance between rows here.
  FUSION_INLINE void gather(const double* camera_from_world, const double* from, std::size_t n_views,
                            std::size_t n_points, std::size_t width) {
    Symmetric<4> normal{};
    n_seen = Lane{};
    const Lane one = Lane{} + 1.0;
    for (std::size_t view = 0; view < n_views; ++view) {
      const double* p = camera_from_world + 12 * view;
      Lane x, y;
      load(x, from + 2 * view * n_points, width);
      load(y, from + (2 * view + 1) * n_points, width);
      const LaneMask seen = (x == x) & (y == y);
      const Lane weight = seen ? one : Lane{};
      x = seen ? x : Lane{};
      y = seen ? y : Lane{};
      n_seen += weight;
      Lane a[4], b[4];
#pragma GCC unroll 4
      for (int i = 0; i < 4; ++i) {
        a[i] = x * p[8 + i] - weight * p[i];
        b[i] = y * p[8 + i] - weight * p[4 + i];
      }
#pragma GCC unroll 4
      for (int i = 0; i < 4; ++i)
#pragma GCC unroll 4
        for (int j = 0; j <= i; ++j) normal(i, j) += a[i] * a[j] + b[i] * b[j];
    }
    // The smallest eigenvalue of exact data is 0; a pivot of the order of rounding keeps the factor finite, and the
    // eigenvector is what the iteration blows up.
    const Lane trace = normal(0, 0) + normal(1, 1) + normal(2, 2) + normal(3, 3);
    const Lane floor = trace * 1e-15;
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) normal(i, i) += floor;
    factor.factor(normal, 1e-300);
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) v[i] = i == 3 ? one : Lane{};
  }

  // Three steps grow the vector by at most 1e45 over the trace's cube, so that none has to divide it again.
  FUSION_INLINE void iterate() { factor.solve(v); }

  FUSION_INLINE void finish(const double* camera_from_world, const double* from, std::size_t n_views,
                            std::size_t n_points, std::size_t width, double* points_m, std::int8_t* status) {
    const Lane one = Lane{} + 1.0, inverse = 1.0 / v[3];
    const Lane q[3] = {v[0] * inverse, v[1] * inverse, v[2] * inverse};
    const Lane far = q[0] * q[0] + q[1] * q[1] + q[2] * q[2];
    Lane said = (n_seen < 2.0) | ~(far < 1e300) ? one : Lane{};
    Lane behind{};
    for (std::size_t view = 0; view < n_views; ++view) {
      const double* p = camera_from_world + 12 * view + 8;
      Lane x;
      load(x, from + 2 * view * n_points, width);
      const Lane depth = p[0] * q[0] + p[1] * q[1] + p[2] * q[2] + p[3];
      behind = (x == x) & (depth <= 0.0) ? one : behind;
    }
    said = said == 0.0 ? behind * 2.0 : said;
    const Lane none = Lane{} + std::nan("");
    double to[3][kLanes];
#pragma GCC unroll 3
    for (int i = 0; i < 3; ++i) store(to[i], said == 0.0 ? q[i] : none);
    double code[kLanes];
    store(code, said);
    for (std::size_t k = 0; k < width; ++k) {
      for (int i = 0; i < 3; ++i) points_m[3 * k + i] = to[i][k];
      status[k] = static_cast<std::int8_t>(code[k]);
    }
  }
};

// points (n_views, 2, n_points), NaN where a camera saw nothing. Each step of the iteration shrinks what is wrong by the
// ratio of the two smallest eigenvalues, 1e-3 and less even for bad views.
inline void triangulate(const double* camera_from_world, const double* points, std::size_t n_views,
                        std::size_t n_points, double* points_m, std::int8_t* status) {
  for (std::size_t first = 0; first < n_points; first += kGroups * kLanes) {
    const std::size_t n_here = n_points - first < kGroups * kLanes ? n_points - first : kGroups * kLanes;
    const std::size_t n_groups = (n_here + kLanes - 1) / kLanes, last = n_groups - 1;
    const std::size_t width = n_here - last * kLanes;
    PointGroup groups[kGroups];
    for (std::size_t g = 0; g < n_groups; ++g)
      groups[g].gather(camera_from_world, points + first + g * kLanes, n_views, n_points, g < last ? kLanes : width);
    for (int step = 0; step < kInverseSteps; ++step)
      for (std::size_t g = 0; g < n_groups; ++g) groups[g].iterate();
    for (std::size_t g = 0; g < n_groups; ++g)
      groups[g].finish(camera_from_world, points + first + g * kLanes, n_views, n_points, g < last ? kLanes : width,
                       points_m + 3 * (first + g * kLanes), status + first + g * kLanes);
  }
}

// First scale of the robust refinement, in deviations of a point: 64 times 3 px is the size of an image's error that a
// wrong person makes.
constexpr double kWideningStart = 64.0;

// Robust refinement of points by reweighted Gauss-Newton steps on the reprojection error. A view's say falls with its
// error against a scale that shrinks from step to step (graduated non-convexity), so a wrong view loses it first where
// it disagrees most. Also gives each point's covariance (xx, yx, yy, zx, zy, zz) and each view's final weight.
FUSION_INLINE void refine_lanes(const double* camera_from_world, const double* points, const double* sd,
                                std::size_t n_views, std::size_t n_points, std::size_t first, int n_steps,
                                double* points_m, double* cov_m2, double* weights) {
  const std::size_t width = n_points - first < kLanes ? n_points - first : kLanes;
  Lane q[3]{};
  for (std::size_t k = 0; k < width; ++k)
    for (int i = 0; i < 3; ++i) q[i][k] = points_m[3 * (first + k) + i];
  Symmetric<3> information;
  Ldlt<3> factor;
  const double shrink = std::pow(kWideningStart, -1.0 / (n_steps - 2));  // The last two steps are at the true scale.
  double widening = kWideningStart;
  for (int step = 0; step <= n_steps; ++step) {
    information = Symmetric<3>{};
    Lane rhs[3]{};
    for (std::size_t view = 0; view < n_views; ++view) {
      const double* p = camera_from_world + 12 * view;
      const double* from = points + 2 * view * n_points + first;
      Lane x{}, y{};
      for (std::size_t k = 0; k < width; ++k) {
        x[k] = from[k];
        y[k] = from[n_points + k];
      }
      const LaneMask seen = (x == x) & (y == y);
      const double precision = 1.0 / (sd[view] * sd[view]);
      const Lane depth = p[8] * q[0] + p[9] * q[1] + p[10] * q[2] + p[11];
      const Lane inverse = 1.0 / (depth > 1e-3 ? depth : Lane{} + 1e-3);
      const Lane u = (p[0] * q[0] + p[1] * q[1] + p[2] * q[2] + p[3]) * inverse;
      const Lane v = (p[4] * q[0] + p[5] * q[1] + p[6] * q[2] + p[7]) * inverse;
      const Lane du = seen ? x - u : Lane{}, dv = seen ? y - v : Lane{};
      // Cauchy-like weight squared (Geman-McClure): an outlier's pull vanishes instead of staying constant.
      const Lane ratio = 1.0 / (1.0 + (du * du + dv * dv) * (precision / (9.0 * widening * widening)));
      const Lane share = seen ? ratio * ratio : Lane{};
      const Lane weight = share * precision;
      for (std::size_t k = 0; k < width; ++k) weights[view * n_points + first + k] = share[k];
      Lane ju[3], jv[3];
#pragma GCC unroll 3
      for (int i = 0; i < 3; ++i) {
        ju[i] = (p[i] - u * p[8 + i]) * inverse;
        jv[i] = (p[4 + i] - v * p[8 + i]) * inverse;
      }
#pragma GCC unroll 3
      for (int i = 0; i < 3; ++i) {
        rhs[i] += weight * (ju[i] * du + jv[i] * dv);
#pragma GCC unroll 3
        for (int j = 0; j <= i; ++j) information(i, j) += weight * (ju[i] * ju[j] + jv[i] * jv[j]);
      }
    }
    factor.factor(information, 1e-9);
    if (step == n_steps) break;  // The last pass only weighs and takes the covariance.
    factor.solve(rhs);
#pragma GCC unroll 3
    for (int i = 0; i < 3; ++i) q[i] += rhs[i];
    widening = widening * shrink > 1.0 ? widening * shrink : 1.0;
  }
  Symmetric<3> cov;
  factor.inverse(cov);
  for (std::size_t k = 0; k < width; ++k) {
    for (int i = 0; i < 3; ++i) points_m[3 * (first + k) + i] = q[i][k];
    for (int i = 0; i < 6; ++i) cov_m2[6 * (first + k) + i] = cov.v[i][k];
  }
}

inline void refine(const double* camera_from_world, const double* points, const double* sd,
                                 std::size_t n_views, std::size_t n_points, int n_steps, double* points_m,
                                 double* cov_m2, double* weights) {
  for (std::size_t first = 0; first < n_points; first += kLanes)
    refine_lanes(camera_from_world, points, sd, n_views, n_points, first, n_steps, points_m, cov_m2, weights);
}

// ---- the filter of every joint ---------------------------------------------------------------------------------------

// State of capacity people: mean (capacity, 6, n_padded), cov (capacity, 21, n_padded), joints in the lanes.

// Carry joints on by dt_s: constant velocity that fades (people stop), driven by white acceleration of spectral density
// acceleration (n_padded), m^2/s^3. Source: Bar-Shalom, Li, Kirubarajan (2001), section 6.2.2.
inline void predict(double* mean, double* cov, const std::int64_t* rows, std::size_t n_rows,
                                  std::size_t n_padded, double dt_s, double fade_s, const double* acceleration) {
  const double fade = std::exp(-dt_s / fade_s);
  const double reach = fade_s * (1.0 - fade);  // How far one unit of velocity still goes.
  for (std::size_t r = 0; r < n_rows; ++r) {
    double* m = mean + rows[r] * kState * n_padded;
    double* c = cov + rows[r] * kStateCov * n_padded;
    for (std::size_t first = 0; first < n_padded; first += kLanes) {
      Symmetric<kState> s;
#pragma GCC unroll 21
      for (int i = 0; i < kStateCov; ++i) load(s.v[i], c + i * n_padded + first);
      Lane q;
      load(q, acceleration + first);
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

// Eight joints of one person while they are updated.
struct JointGroup {
  Symmetric<kState> prior, information;
  Ldlt<kState> factor;
  Lane mean[kState], x[kState], rhs[kState];
  Lane weight_sum;
};

FUSION_INLINE void begin_update(JointGroup& group, const double* m, const double* c, std::size_t n_padded) {
  Symmetric<kState> prior_cov;
#pragma GCC unroll 21
  for (int i = 0; i < kStateCov; ++i) load(prior_cov.v[i], c + i * n_padded);
#pragma GCC unroll 6
  for (int i = 0; i < kState; ++i) {
    load(group.mean[i], m + i * n_padded);
    group.x[i] = group.mean[i];
  }
  group.factor.factor(prior_cov, 1e-12);
  group.factor.inverse(group.prior);
}

// Information and pull of the views that the person was matched in, at the present guess. The last pass only weighs, at
// the answer: its information is the answer's covariance.
FUSION_INLINE void look(JointGroup& group, const Views& views, const Detections& detections,
                        const std::int64_t* detection_of, std::size_t n_padded, std::size_t first,
                        const double* body_var, const double* acceleration, double freedom, bool plain, bool last,
                        double* residual_sum, double* residual_count) {
  const Lane x0 = group.x[0], x1 = group.x[1], x2 = group.x[2], v0 = group.x[3], v1 = group.x[4], v2 = group.x[5];
  Lane body, unsteady;
  load(body, body_var + first);
  load(unsteady, acceleration + first);
  // Position with position, velocity with position, velocity with velocity: the same block times 1, dt, dt^2.
  Symmetric<3> block_pp{}, block_vp{}, block_vv{};
  Lane pull_p[3] = {}, pull_v[3] = {};
  Lane weight_sum{};
  for (std::size_t view = 0; view < views.n_views; ++view) {
    const std::int64_t detection = detection_of[view];
    if (detection < 0) continue;
    const double* p = views.camera_from_world + 12 * view;
    const double dt = views.dt_s[view];
    Lane zx, zy, var, seen;
    load(zx, detections.x + detection * n_padded + first);
    load(zy, detections.y + detection * n_padded + first);
    load(var, detections.var + detection * n_padded + first);
    load(seen, detections.seen + detection * n_padded + first);
    const Lane qx = x0 + dt * v0, qy = x1 + dt * v1, qz = x2 + dt * v2;
    Lane depth = p[8] * qx + p[9] * qy + p[10] * qz + p[11];
    at_least(depth, 0.05);
    // Image coordinates, their distance and their Jacobian all come times depth, so that one division is left:
    // a / depth and b / depth is where the point is seen, (p - a / depth p8) / depth the Jacobian.
    const Lane a = p[0] * qx + p[1] * qy + p[2] * qz + p[3], b = p[4] * qx + p[5] * qy + p[6] * qz + p[7];
    const Lane du = zx * depth - a, dv = zy * depth - b;
    const Lane depth_sq = depth * depth, off_sq = du * du + dv * dv;
    // A detector's joint is not quite the same point of the body from every side: body_var, metres at the body.
    // Nor did it move evenly since that view looked.
    const Lane total_var = var * depth_sq + body + unsteady * (std::fabs(dt * dt * dt) / 3.0);
    // Student-t weight (freedom + 2) / (freedom + distance_sq) over the variance, over depth^4 for the Jacobians.
    const Lane w = plain ? seen / (total_var * depth_sq)
                         : seen * (freedom + 2.0) / ((freedom * total_var + off_sq) * depth_sq);
    weight_sum += w * total_var * depth_sq;
    if (last) {
      const Lane distance_sq = seen * off_sq / total_var;
      residual_sum[view] += sum(distance_sq < 25.0 ? distance_sq : Lane{} + 25.0);
      residual_count[view] += sum(seen);
    }
    const Lane off_u = du * depth, off_v = dv * depth;
    Lane ju[3], jv[3];
#pragma GCC unroll 3
    for (int i = 0; i < 3; ++i) {
      ju[i] = p[i] * depth - a * p[8 + i];
      jv[i] = p[4 + i] * depth - b * p[8 + i];
    }
#pragma GCC unroll 3
    for (int i = 0; i < 3; ++i) {
      const Lane wu = w * ju[i], wv = w * jv[i];
      const Lane pull = wu * off_u + wv * off_v;
      pull_p[i] += pull;
      pull_v[i] += dt * pull;
#pragma GCC unroll 3
      for (int j = 0; j <= i; ++j) {
        const Lane block = wu * ju[j] + wv * jv[j];
        block_pp(i, j) += block;
        block_vp(i, j) += dt * block;
        block_vv(i, j) += (dt * dt) * block;
      }
    }
  }
  group.weight_sum = weight_sum;
#pragma GCC unroll 3
  for (int i = 0; i < 3; ++i) {
    group.rhs[i] = pull_p[i];
    group.rhs[3 + i] = pull_v[i];
#pragma GCC unroll 3
    for (int j = 0; j < 3; ++j) {
      group.information(3 + i, j) = group.prior(3 + i, j) + block_vp(i, j);
      if (j > i) continue;
      group.information(i, j) = group.prior(i, j) + block_pp(i, j);
      group.information(3 + i, 3 + j) = group.prior(3 + i, 3 + j) + block_vv(i, j);
    }
  }
#pragma GCC unroll 6
  for (int i = 0; i < kState; ++i)
#pragma GCC unroll 6
    for (int j = 0; j < kState; ++j) group.rhs[i] += group.prior(i, j) * (group.mean[j] - group.x[j]);
}

// The body's axis: mean place of the joints, weighted by how well each is known, and the variance of either coordinate:
// joints that are vague because one camera saw them are off together, so their mean is no better than they are.
inline void find_axis(const double* m, const double* c, std::size_t n_padded, const double* axis_precision,
                      double& x_out, double& y_out, double& var_out) {
  double sum_w = 1e-12, sum_x = 0.0, sum_y = 0.0, sum_var = 0.0;
  for (std::size_t j = 0; j < n_padded; ++j) {
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

// Most probable position and velocity of every person's joints, given the prediction and all that was matched:
// Gauss-Newton on the negative logarithm of the posterior, with Student-t measurement noise by reweighting, so that a
// view that saw something else (an occluder's joint, left for right) is outvoted. Every view looks at its own instant.
//
// A person's groups of lanes take each step together: to factor six by six is one chain of six divisions.
inline void update(const Views& views, const Detections& detections, const std::int64_t* rows,
                                 const std::int64_t* detection_of, std::size_t n_rows, std::size_t n_padded,
                   const double* body_var, const double* acceleration, const double* floor_precision,
                   const Anchors& anchors, double freedom, int n_steps, int n_plain, double* mean, double* cov,
                   double* residual_sum, double* residual_count, double* support) {
  for (std::size_t r = 0; r < n_rows; ++r) {
    const std::int64_t* matched = detection_of + r * views.n_views;
    double* sums = residual_sum + r * views.n_views;
    double* counts = residual_count + r * views.n_views;
    for (std::size_t view = 0; view < views.n_views; ++view) sums[view] = counts[view] = 0.0;
    double* m = mean + rows[r] * kState * n_padded;
    double* c = cov + rows[r] * kStateCov * n_padded;
    double* heights = anchors.heights_m + rows[r] * n_padded;
    double axis_x, axis_y, axis_var;
    find_axis(m, c, n_padded, anchors.axis_precision, axis_x, axis_y, axis_var);
    for (std::size_t chunk = 0; chunk < n_padded; chunk += kGroups * kLanes) {
      const std::size_t n_left = (n_padded - chunk) / kLanes;
      const std::size_t n_groups = n_left < kGroups ? n_left : kGroups;
      JointGroup groups[kGroups];
      for (std::size_t g = 0; g < n_groups; ++g)
        begin_update(groups[g], m + chunk + g * kLanes, c + chunk + g * kLanes, n_padded);
      for (int step = 0; step <= n_steps; ++step) {
        for (std::size_t g = 0; g < n_groups; ++g)
          look(groups[g], views, detections, matched, n_padded, chunk + g * kLanes, body_var, acceleration, freedom,
               step < n_plain, step == n_steps, sums, counts);
        for (std::size_t g = 0; g < n_groups; ++g) {
          JointGroup& group = groups[g];
          const std::size_t first = chunk + g * kLanes;
          Lane on_floor, near_axis, near_height, height;
          load(on_floor, floor_precision + first);
          load(near_axis, anchors.axis_precision + first);
          load(near_height, anchors.height_precision + first);
          load(height, heights + first);
          near_axis *= anchors.share / (1.0 + axis_var * near_axis);
          near_height *= anchors.share;
          // A point known to touch the floor, whenever anything was seen of it or not.
          group.information(2, 2) += on_floor + near_height;
          group.rhs[2] += near_height * (height - group.x[2]) - on_floor * group.x[2];
          group.information(0, 0) += near_axis;
          group.information(1, 1) += near_axis;
          group.rhs[0] += near_axis * (axis_x - group.x[0]);
          group.rhs[1] += near_axis * (axis_y - group.x[1]);
        }
        for (std::size_t g = 0; g < n_groups; ++g) groups[g].factor.factor(groups[g].information, 1e-9);
        if (step == n_steps) break;
        for (std::size_t g = 0; g < n_groups; ++g) {
          groups[g].factor.solve(groups[g].rhs);
#pragma GCC unroll 6
          for (int i = 0; i < kState; ++i) groups[g].x[i] += groups[g].rhs[i];
        }
      }
      for (std::size_t g = 0; g < n_groups; ++g) {
        JointGroup& group = groups[g];
        const std::size_t first = chunk + g * kLanes;
        Symmetric<kState> out;
        group.factor.inverse(out);
#pragma GCC unroll 6
        for (int i = 0; i < kState; ++i) store(m + i * n_padded + first, group.x[i]);
#pragma GCC unroll 21
        for (int i = 0; i < kStateCov; ++i) store(c + i * n_padded + first, out.v[i]);
        store(support + r * n_padded + first, group.weight_sum);
        // A height is learnt while it is certain: within 10 cm, and two views or so behind it.
        const LaneMask certain = (out(2, 2) < 0.01) & (group.weight_sum > 1.5);
        Lane height;
        load(height, heights + first);
        height += (certain ? Lane{} + anchors.learning : Lane{}) * (group.x[2] - height);
        store(heights + first, height);
      }
    }
  }
}

// Bones do not stretch: each limb's length, learnt while both its joints are well seen, is a measurement of the distance
// between them, by one step of an extended Kalman filter. It moves the joint that is less certain, so a hidden hand stays
// within reach of its elbow. Limbs of one person share joints and follow each other; eight people walk side by side.
inline void hold_limbs(double* mean, double* cov, const std::int64_t* rows, std::size_t n_rows, std::size_t n_padded,
                       const std::int64_t* limbs, std::size_t n_limbs, double* lengths_m, const double* support,
                       double sd_m, double own_var, double learning) {
  for (std::size_t first = 0; first < n_rows; first += kLanes) {
    const std::size_t width = n_rows - first < kLanes ? n_rows - first : kLanes;
    double *m[kLanes], *c[kLanes];
    for (std::size_t k = 0; k < kLanes; ++k) {
      const std::int64_t row = rows[first + (k < width ? k : 0)];
      m[k] = mean + row * kState * n_padded;
      c[k] = cov + row * kStateCov * n_padded;
    }
    for (std::size_t limb = 0; limb < n_limbs; ++limb) {
      Lane state[2][kState], held[2], usual{};
      Symmetric<kState> s[2];
      for (int end = 0; end < 2; ++end) {
        const std::size_t joint = limbs[2 * limb + end];
#pragma GCC unroll 6
        for (int i = 0; i < kState; ++i) collect(state[end][i], m, i * n_padded + joint);
#pragma GCC unroll 21
        for (int i = 0; i < kStateCov; ++i) collect(s[end].v[i], c, i * n_padded + joint);
        for (std::size_t k = 0; k < width; ++k) held[end][k] = support[(first + k) * n_padded + joint];
      }
      for (std::size_t k = 0; k < width; ++k) usual[k] = lengths_m[rows[first + k] * n_limbs + limb];
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
        const std::size_t joint = limbs[2 * limb + end];
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
        for (int i = 0; i < kState; ++i) spread(state[end][i], m, i * n_padded + joint, width);
#pragma GCC unroll 21
        for (int i = 0; i < kStateCov; ++i) spread(s[end].v[i], c, i * n_padded + joint, width);
      }
      for (std::size_t k = 0; k < width; ++k) lengths_m[rows[first + k] * n_limbs + limb] = usual[k];
    }
  }
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
inline void describe(const double* mean, const double* cov, const std::int64_t* rows, std::size_t n_rows,
                     std::size_t n_joints, std::size_t n_padded, const double* share, double sd_max_m,
                     double* joints_m, double* joints_sd_m, double* position_m, double* position_sd_m) {
  const Lane unknown = Lane{} + std::nan("");
  for (std::size_t r = 0; r < n_rows; ++r) {
    const double* m = mean + rows[r] * kState * n_padded;
    const double* c = cov + rows[r] * kStateCov * n_padded;
    Lane sum_w{}, sum_x{}, sum_y{}, sum_var{};
    for (std::size_t first = 0; first < n_joints; first += kLanes) {
      const std::size_t width = n_joints - first < kLanes ? n_joints - first : kLanes;
      Symmetric<3> s;
      Lane place[3], part{};
#pragma GCC unroll 6
      for (int i = 0; i < 6; ++i) load(s.v[i], c + i * n_padded + first);
#pragma GCC unroll 3
      for (int i = 0; i < 3; ++i) load(place[i], m + i * n_padded + first);
      for (std::size_t k = 0; k < width; ++k) part[k] = share[first + k];
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
      for (std::size_t k = 0; k < width; ++k) {
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

extern const Kernels kKernels{
    &prepare, &undistort, &costs, &triangulate, &refine, &predict, &update, &hold_limbs, &describe,
};

}  // namespace FUSION_ISA
}  // namespace fusion
