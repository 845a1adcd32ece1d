// From pixels to points in the world: undistortion, linear triangulation and its robust refinement. Plain C++17 over
// small_matrix.hpp; loops over arrays that the caller owns. Nothing is kept, nothing raised.
//
// Normalised image coordinates lie on the plane one unit in front of the camera, without distortion.
//
// Compiled once for each instruction set, into a namespace of its own: FUSION_ISA (see isa.hpp), hence without a guard.
#include "small_matrix.hpp"

namespace fusion {
namespace FUSION_ISA {

// Intrinsics as the kernels read them: fx, fy, cx, cy, then OpenCV's k1, k2, p1, p2, k3.
constexpr std::size_t kIntrinsics = 9;

enum Status : std::int8_t { ok = 0, underconstrained = 1, behind_camera = 2 };

// ---- the lens --------------------------------------------------------------------------------------------------------

// Groups of lanes that walk side by side: while one waits for a result, the others compute.
constexpr std::size_t kGroups = 4;

// Pixels of one camera on their way to normalised coordinates, a lane each, by Newton's method on OpenCV's distortion
// model (radial k1, k2, k3 and tangential p1, p2; Brown 1966). The usual fixed-point iteration converges only near the
// centre. L is Lane or LaneF, T its number.
template <class L, class T>
struct Undistortion {
  L x, y, xd, yd;

  FUSION_INLINE void begin(const double* lens, const L& u_px, const L& v_px) {
    x = xd = (u_px - T(lens[2])) * T(1.0 / lens[0]);
    y = yd = (v_px - T(lens[3])) * T(1.0 / lens[1]);
  }

  // Returns the lanes that moved by more than the square root of moved_sq.
  FUSION_INLINE auto step(T k1, T k2, T p1, T p2, T k3, T moved_sq) -> decltype(mask_of(L{})) {
    const L r2 = x * x + y * y;
    const L radial = T(1) + r2 * (k1 + r2 * (k2 + r2 * k3));
    const L slope = T(2) * (k1 + r2 * (T(2) * k2 + r2 * (T(3) * k3)));  // d radial / d x = slope * x
    const L fx = x * radial + T(2) * p1 * x * y + p2 * (r2 + T(2) * x * x) - xd;
    const L fy = y * radial + p1 * (r2 + T(2) * y * y) + T(2) * p2 * x * y - yd;
    const L a = radial + x * x * slope + T(2) * p1 * y + T(6) * p2 * x;
    const L b = x * y * slope + T(2) * p1 * x + T(2) * p2 * y;
    const L d = radial + y * y * slope + T(6) * p1 * y + T(2) * p2 * x;
    const L det = a * d - b * b;
    // Beyond the model's turning point there is no solution; stay at the last good one.
    const L inverse = det > T(1e-6) ? T(1) / det : L{};
    const L dx = (d * fx - b * fy) * inverse, dy = (a * fy - b * fx) * inverse;
    x -= dx;
    y -= dy;
    return (dx * dx + dy * dy) > moved_sq;
  }
};

// Five steps reach 1e-12 wherever the model is invertible. Each step doubles the number of correct digits, so where no lane
// moved by more than the square root of moved_sq, the next step would change nothing that matters.
template <class L, class T>
FUSION_INLINE void undistort_groups(const double* lens, Undistortion<L, T>* groups, std::size_t n_groups, T moved_sq) {
  const T k1 = T(lens[4]), k2 = T(lens[5]), p1 = T(lens[6]), p2 = T(lens[7]), k3 = T(lens[8]);
  if (k1 == 0 && k2 == 0 && p1 == 0 && p2 == 0 && k3 == 0) return;
  for (int step = 0; step < 5; ++step) {
    auto moving = mask_of(L{});
    for (std::size_t g = 0; g < n_groups; ++g) moving |= groups[g].step(k1, k2, p1, p2, k3, moved_sq);
    if (step > 0 && !any(moving)) break;
  }
}

// points_px, out (n_points, 2) of one camera.
inline void undistort(const double* lens, const double* points_px, std::size_t n_points, double* out) {
  for (std::size_t first = 0; first < n_points; first += kGroups * kLanes) {
    const std::size_t width = n_points - first < kGroups * kLanes ? n_points - first : kGroups * kLanes;
    Undistortion<Lane, double> groups[kGroups];
    const std::size_t n_groups = (width + kLanes - 1) / kLanes;
    for (std::size_t g = 0; g < n_groups; ++g) {
      Lane u{}, v{};
      for (std::size_t k = 0; k < kLanes && g * kLanes + k < width; ++k) {
        u[k] = points_px[2 * (first + g * kLanes + k)];
        v[k] = points_px[2 * (first + g * kLanes + k) + 1];
      }
      groups[g].begin(lens, u, v);
    }
    undistort_groups(lens, groups, n_groups, 1e-12);
    for (std::size_t g = 0; g < n_groups; ++g)
      for (std::size_t k = 0; k < kLanes && g * kLanes + k < width; ++k) {
        const double* pixel = points_px + 2 * (first + g * kLanes + k);
        double* to = out + 2 * (first + g * kLanes + k);
        // Where a pixel is unknown the steps above stood still, and their state is no result.
        const bool known = !std::isnan(pixel[0]) && !std::isnan(pixel[1]);
        to[0] = known ? groups[g].x[k] : std::nan("");
        to[1] = known ? groups[g].y[k] : std::nan("");
      }
  }
}

// ---- linear triangulation --------------------------------------------------------------------------------------------

// Direct linear transformation (DLT) of a lane's width of points: the unit 4-vector X that minimises |A X|, where A stacks the rows
// x P3 - P1 and y P3 - P2 of all views, is the eigenvector of A^T A with the smallest eigenvalue. It is found by inverse
// iteration. Source: Hartley and Zisserman, Multiple View Geometry (2004), section 12.2.
constexpr int kInverseSteps = 5;

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
    // iteration amplifies the eigenvector all the more.
    const Lane trace = normal(0, 0) + normal(1, 1) + normal(2, 2) + normal(3, 3);
    const Lane floor = trace * 1e-15;
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) normal(i, i) += floor;
    factor.factor(normal, 1e-300);
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) v[i] = i == 3 ? one : Lane{};
  }

  // Five steps grow the vector by at most 1e75 over powers of the trace, so no step has to normalise it.
  FUSION_INLINE void iterate() { factor.solve(v); }

  FUSION_INLINE void finish(const double* camera_from_world, const double* from, std::size_t n_views,
                            std::size_t n_points, std::size_t width, double* points_m, std::int8_t* status) {
    const Lane one = Lane{} + 1.0, inverse = 1.0 / v[3];
    const Lane q[3] = {v[0] * inverse, v[1] * inverse, v[2] * inverse};
    const Lane far = q[0] * q[0] + q[1] * q[1] + q[2] * q[2];
    Lane outcome = (n_seen < 2.0) | ~(far < 1e300) ? one : Lane{};
    Lane behind{};
    for (std::size_t view = 0; view < n_views; ++view) {
      const double* p = camera_from_world + 12 * view + 8;
      Lane x;
      load(x, from + 2 * view * n_points, width);
      const Lane depth = p[0] * q[0] + p[1] * q[1] + p[2] * q[2] + p[3];
      behind = (x == x) & (depth <= 0.0) ? one : behind;
    }
    outcome = outcome == 0.0 ? behind * 2.0 : outcome;
    const Lane none = Lane{} + std::nan("");
    double to[3][kLanes];
#pragma GCC unroll 3
    for (int i = 0; i < 3; ++i) store(to[i], outcome == 0.0 ? q[i] : none);
    double code[kLanes];
    store(code, outcome);
    for (std::size_t k = 0; k < width; ++k) {
      for (int i = 0; i < 3; ++i) points_m[3 * k + i] = to[i][k];
      status[k] = static_cast<std::int8_t>(code[k]);
    }
  }
};

// Linear triangulation. points (n_views, 2, n_points), NaN where a camera saw nothing. Each step of the iteration shrinks
// the error by the ratio of the two smallest eigenvalues, 1e-3 and less even for bad views.
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

// First scale of the robust refinement, in standard deviations of a point: 64 times 3 px is an error as large as another
// person's joint makes.
constexpr double kWideningStart = 64.0;

// Robust refinement of points by reweighted Gauss-Newton steps on the reprojection error r. The weight of a view,
// (1 + |r|^2 / (9 s^2))^-2 (Geman-McClure), falls with its error against a scale s that shrinks from step to step
// (graduated non-convexity), so that the views which disagree most lose their weight first. Also gives each point's
// covariance (xx, yx, yy, zx, zy, zz) and each view's final weight.
// Source: Yang, Antonante, Tzoumas, Carlone, Graduated Non-Convexity for Robust Spatial Perception (2020).
FUSION_INLINE void refine_lanes(const double* camera_from_world, const double* points, const double* sd,
                                std::size_t n_views, std::size_t n_points, std::size_t first, int n_steps,
                                double* points_m, double* cov_m2, double* weights) {
  const std::size_t width = n_points - first < kLanes ? n_points - first : kLanes;
  Lane q[3]{};
  for (std::size_t k = 0; k < width; ++k)
    for (int i = 0; i < 3; ++i) q[i][k] = points_m[3 * (first + k) + i];
  Symmetric<3> information;
  Ldlt<3> factor{};
  const double shrink = std::pow(kWideningStart, -1.0 / (n_steps - 2));  // The last two steps are at the true scale.
  double widening = kWideningStart;
  for (int step = 0; step <= n_steps; ++step) {
    information = Symmetric<3>{};
    Lane rhs[3]{};
    for (std::size_t view = 0; view < n_views; ++view) {
      const double* p = camera_from_world + 12 * view;
      const double* from = points + 2 * view * n_points + first;
      Lane x, y;
      load(x, from, width);
      load(y, from + n_points, width);
      const LaneMask seen = (x == x) & (y == y);
      const double precision = 1.0 / (sd[view] * sd[view]);
      const Lane depth = p[8] * q[0] + p[9] * q[1] + p[10] * q[2] + p[11];
      const Lane inverse = 1.0 / (depth > 1e-3 ? depth : Lane{} + 1e-3);
      const Lane u = (p[0] * q[0] + p[1] * q[1] + p[2] * q[2] + p[3]) * inverse;
      const Lane v = (p[4] * q[0] + p[5] * q[1] + p[6] * q[2] + p[7]) * inverse;
      const Lane du = seen ? x - u : Lane{}, dv = seen ? y - v : Lane{};
      // An outlier's pull vanishes instead of staying constant.
      const Lane ratio = 1.0 / (1.0 + (du * du + dv * dv) * (precision / (9.0 * widening * widening)));
      const Lane share = seen ? ratio * ratio : Lane{};
      const Lane weight = share * precision;
      if (step == n_steps)
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

inline void refine(const double* camera_from_world, const double* points, const double* sd, std::size_t n_views,
                   std::size_t n_points, int n_steps, double* points_m, double* cov_m2, double* weights) {
  for (std::size_t first = 0; first < n_points; first += kLanes)
    refine_lanes(camera_from_world, points, sd, n_views, n_points, first, n_steps, points_m, cov_m2, weights);
}

}  // namespace FUSION_ISA
}  // namespace fusion
