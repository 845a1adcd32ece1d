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
constexpr Size kIntrinsics = 9;

enum Status : std::int8_t { ok = 0, underconstrained = 1, behind_camera = 2 };

// Centre of a camera (3, 4) in the world: -R^T t.
FUSION_INLINE void find_eye(const double* p, double* out) {
  for (int i = 0; i < 3; ++i) out[i] = -(p[i] * p[3] + p[4 + i] * p[7] + p[8 + i] * p[11]);
}

// ---- the lens --------------------------------------------------------------------------------------------------------

// Groups of lanes that walk side by side: while one waits for a result, the others compute. 32 numbers in flight were the
// fastest with each instruction set.
constexpr Size kGroups = 32 / kLanes;

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
FUSION_INLINE void undistort_groups(const double* lens, Undistortion<L, T>* groups, Size n_groups, T moved_sq) {
  const T k1 = T(lens[4]), k2 = T(lens[5]), p1 = T(lens[6]), p2 = T(lens[7]), k3 = T(lens[8]);
  if (k1 == 0 && k2 == 0 && p1 == 0 && p2 == 0 && k3 == 0) return;
  for (int step = 0; step < 5; ++step) {
    auto moving = mask_of(L{});
    for (Size g = 0; g < n_groups; ++g) moving |= groups[g].step(k1, k2, p1, p2, k3, moved_sq);
    if (step > 0 && !any(moving)) break;
  }
}

// Places of the two coordinates of pixels that lie side by side in two vectors.
template <Size coordinate>
struct Coordinate {
  static constexpr Size at(Size k) { return 2 * k + coordinate; }
};

// Pixels (n_points, 2) of one camera to rows x and y (n_points) of normalised coordinates; NaN stays NaN. Without
// `distorted` the pixels are those of a camera without distortion. x and y have room for whole vectors.
inline void normalise_view(const double* lens, const double* points_px, Size n_points, bool distorted, double* x,
                           double* y) {
  for (Size first = 0; first < n_points; first += kGroups * kLanes) {
    const Size width = n_points - first < kGroups * kLanes ? n_points - first : kGroups * kLanes;
    const Size n_groups = (width + kLanes - 1) / kLanes;
    Undistortion<Lane, double> groups[kGroups];
    LaneMask known[kGroups];
    for (Size g = 0; g < n_groups; ++g) {
      const double* from = points_px + 2 * (first + g * kLanes);
      double padded[2 * kLanes];
      if ((g + 1) * kLanes > width) {
        for (Size k = 0; k < 2 * kLanes; ++k) padded[k] = std::nan("");
        std::memcpy(padded, from, sizeof(double) * 2 * (width - g * kLanes));
        from = padded;
      }
      Lane pairs[2];
      load(pairs[0], from);
      load(pairs[1], from + kLanes);
      const Lane u = shuffled<Coordinate<0>>(pairs[0], pairs[1]), v = shuffled<Coordinate<1>>(pairs[0], pairs[1]);
      known[g] = (u == u) & (v == v);
      groups[g].begin(lens, u, v);
    }
    if (distorted) undistort_groups(lens, groups, n_groups, 1e-12);
    // Where a pixel is unknown the steps above stood still, and their state is no result.
    const Lane none = Lane{} + std::nan("");
    for (Size g = 0; g < n_groups; ++g) {
      store(x + first + g * kLanes, known[g] ? groups[g].x : none);
      store(y + first + g * kLanes, known[g] ? groups[g].y : none);
    }
  }
}

// Points as rows of every view, apart by whole vectors: what triangulation walks over.
FUSION_INLINE Size padded_points(Size n_points) { return (n_points + kLanes - 1) / kLanes * kLanes; }

// points_px (n_views, n_points, 2) to rows (n_views, 2, padded_points(n_points)).
inline void normalise(const double* lenses, const double* points_px, Size n_views, Size n_points, bool distorted,
                      double* rows) {
  const Size n_padded = padded_points(n_points);
  for (Size view = 0; view < n_views; ++view) {
    double* x = rows + 2 * view * n_padded;
    normalise_view(lenses + kIntrinsics * view, points_px + 2 * view * n_points, n_points, distorted, x, x + n_padded);
  }
}

// The same with the two coordinates of a point side by side: out (n_views, n_points, 2). rows as above, scratch.
inline void undistort(const double* lenses, const double* points_px, Size n_views, Size n_points, double* rows,
                      double* out) {
  const Size n_padded = padded_points(n_points);
  normalise(lenses, points_px, n_views, n_points, true, rows);
  for (Size view = 0; view < n_views; ++view) {
    const double *x = rows + 2 * view * n_padded, *y = x + n_padded;
    for (Size k = 0; k < n_points; ++k) {
      out[2 * (view * n_points + k)] = x[k];
      out[2 * (view * n_points + k) + 1] = y[k];
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

  // from (n_views, 2, row).
  FUSION_INLINE void gather(const double* camera_from_world, const double* from, Size n_views, Size row) {
    Symmetric<4> normal{};
    n_seen = Lane{};
    const Lane one = Lane{} + 1.0;
    for (Size view = 0; view < n_views; ++view) {
      const double* p = camera_from_world + 12 * view;
      Lane x, y;
      load(x, from + 2 * view * row);
      load(y, from + (2 * view + 1) * row);
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

  FUSION_INLINE void finish(const double* camera_from_world, const double* from, Size n_views, Size row, Size width,
                            double* points_m, std::int8_t* status) {
    const Lane one = Lane{} + 1.0, inverse = 1.0 / v[3];
    const Lane q[3] = {v[0] * inverse, v[1] * inverse, v[2] * inverse};
    const Lane far = q[0] * q[0] + q[1] * q[1] + q[2] * q[2];
    Lane outcome = ((n_seen < 2.0) | ~(far < 1e300)) ? one : Lane{};
    Lane behind{};
    for (Size view = 0; view < n_views; ++view) {
      const double* p = camera_from_world + 12 * view + 8;
      Lane x;
      load(x, from + 2 * view * row);
      const Lane depth = p[0] * q[0] + p[1] * q[1] + p[2] * q[2] + p[3];
      behind = ((x == x) & (depth <= 0.0)) ? one : behind;
    }
    outcome = outcome == 0.0 ? behind * 2.0 : outcome;
    const Lane none = Lane{} + std::nan("");
    double to[3][kLanes];
#pragma GCC unroll 3
    for (int i = 0; i < 3; ++i) store(to[i], outcome == 0.0 ? q[i] : none);
    double code[kLanes];
    store(code, outcome);
    for (Size k = 0; k < width; ++k) {
      for (int i = 0; i < 3; ++i) points_m[3 * k + i] = to[i][k];
      status[k] = static_cast<std::int8_t>(code[k]);
    }
  }
};

// Linear triangulation. points (n_views, 2, padded_points(n_points)), NaN where a camera saw nothing. Each step of the
// iteration shrinks the error by the ratio of the two smallest eigenvalues, 1e-3 and less even for bad views.
inline void triangulate(const double* camera_from_world, const double* points, Size n_views, Size n_points,
                        double* points_m, std::int8_t* status) {
  const Size row = padded_points(n_points);
  for (Size first = 0; first < n_points; first += kGroups * kLanes) {
    const Size n_groups = row - first < kGroups * kLanes ? (row - first) / kLanes : kGroups;
    PointGroup groups[kGroups];
    for (Size g = 0; g < n_groups; ++g) groups[g].gather(camera_from_world, points + first + g * kLanes, n_views, row);
    for (int step = 0; step < kInverseSteps; ++step)
      for (Size g = 0; g < n_groups; ++g) groups[g].iterate();
    for (Size g = 0; g < n_groups; ++g) {
      const Size at = first + g * kLanes, width = n_points - at < kLanes ? n_points - at : kLanes;
      groups[g].finish(camera_from_world, points + at, n_views, row, width, points_m + 3 * at, status + at);
    }
  }
}

// ---- robust refinement -----------------------------------------------------------------------------------------------

// A view agrees with the result where its robust weight is above this: a residual of 4.4 standard deviations.
constexpr double kAgreesMin = 0.1;
// Nearly parallel rays leave the depth undetermined; a deviation above a metre is no location.
constexpr double kVarianceMax = 1.0;

// A lane's width of points under refinement.
struct RefinedGroup {
  Lane q[3], rhs[3], n_agreeing, behind;
  Symmetric<3> information;
  Ldlt<3> factor;

  FUSION_INLINE void begin(const double* points_m, Size width) {
    for (int i = 0; i < 3; ++i) q[i] = Lane{};
    for (Size k = 0; k < width; ++k)
      for (int i = 0; i < 3; ++i) q[i][k] = points_m[3 * k + i];
  }

  // Normal equations of one step at the scale `widening`; from (n_views, 2, row). In the last pass also which views agree:
  // the first `width` numbers of rows in agreeing (n_views, n_points).
  template <bool last>
  FUSION_INLINE void gather(const double* camera_from_world, const double* from, const double* sd, Size n_views,
                            Size row, double widening, unsigned char* agreeing, Size n_points, Size width) {
    const Lane one = Lane{} + 1.0;
    information = Symmetric<3>{};
    for (int i = 0; i < 3; ++i) rhs[i] = Lane{};
    n_agreeing = behind = Lane{};
    for (Size view = 0; view < n_views; ++view) {
      const double* p = camera_from_world + 12 * view;
      Lane x, y;
      load(x, from + 2 * view * row);
      load(y, from + (2 * view + 1) * row);
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
      if constexpr (last) {
        const Lane agrees = share > kAgreesMin ? one : Lane{};
        n_agreeing += agrees;
        behind = ((agrees > 0.0) & (depth <= 0.0)) ? one : behind;
        for (Size k = 0; k < width; ++k) agreeing[view * n_points + k] = agrees[k] > 0.0;
      }
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
  }

  FUSION_INLINE void advance() {
    factor.factor(information, 1e-9);
    factor.solve(rhs);
#pragma GCC unroll 3
    for (int i = 0; i < 3; ++i) q[i] += rhs[i];
  }

  // status in: that of the linear start.
  FUSION_INLINE void finish(Size width, double* points_m, double* cov_m2, std::int8_t* status) {
    factor.factor(information, 1e-9);
    Symmetric<3> cov;
    factor.inverse(cov);
    const Lane trace = cov(0, 0) + cov(1, 1) + cov(2, 2);
    for (Size k = 0; k < width; ++k) {
      if (status[k] != underconstrained) {
        status[k] = behind[k] > 0.0 ? behind_camera : n_agreeing[k] < 2.0 ? underconstrained : ok;
        if (!(trace[k] < kVarianceMax)) status[k] = underconstrained;
      }
      const double unknown = status[k] == ok ? 0.0 : std::nan("");
      for (int i = 0; i < 3; ++i) points_m[3 * k + i] = q[i][k] + unknown;
      for (int i = 0; i < 3; ++i)
        for (int j = 0; j < 3; ++j) cov_m2[9 * k + 3 * i + j] = cov(i, j)[k] + unknown;
    }
  }
};

// First scale of the robust refinement, in standard deviations of a point: 64 times 3 px is an error as large as another
// person's joint makes.
constexpr double kWideningStart = 64.0;

// Robust refinement of points by reweighted Gauss-Newton steps on the reprojection error r. The weight of a view,
// (1 + |r|^2 / (9 s^2))^-2 (Geman-McClure), falls with its error against a scale s that shrinks from step to step
// (graduated non-convexity), so that the views which disagree most lose their weight first.
// Source: Yang, Antonante, Tzoumas, Carlone, Graduated Non-Convexity for Robust Spatial Perception (2020).
//
// points (n_views, 2, padded_points(n_points)); points_m, status in and out; cov_m2 (n_points, 3, 3) and agreeing
// (n_views, n_points) out. What is not located is NaN, and no view agrees with it.
inline void refine(const double* camera_from_world, const double* points, const double* sd, Size n_views, Size n_points,
                   int n_steps, double* points_m, double* cov_m2, unsigned char* agreeing, std::int8_t* status) {
  const double shrink = std::pow(kWideningStart, -1.0 / (n_steps - 2));  // The last two steps are at the true scale.
  const Size row = padded_points(n_points);
  for (Size first = 0; first < n_points; first += kGroups * kLanes) {
    const Size n_groups = row - first < kGroups * kLanes ? (row - first) / kLanes : kGroups;
    const auto width = [&](Size at) { return n_points - at < kLanes ? n_points - at : kLanes; };
    RefinedGroup groups[kGroups];
    for (Size g = 0; g < n_groups; ++g) {
      const Size at = first + g * kLanes;
      groups[g].begin(points_m + 3 * at, width(at));
    }
    double widening = kWideningStart;
    for (int step = 0; step < n_steps; ++step) {
      for (Size g = 0; g < n_groups; ++g)
        groups[g].gather<false>(camera_from_world, points + first + g * kLanes, sd, n_views, row, widening, nullptr, 0,
                                0);
      for (Size g = 0; g < n_groups; ++g) groups[g].advance();
      widening = widening * shrink > 1.0 ? widening * shrink : 1.0;
    }
    // The last pass only weighs and takes the covariance.
    for (Size g = 0; g < n_groups; ++g) {
      const Size at = first + g * kLanes;
      groups[g].gather<true>(camera_from_world, points + at, sd, n_views, row, widening, agreeing + at, n_points,
                             width(at));
      groups[g].finish(width(at), points_m + 3 * at, cov_m2 + 9 * at, status + at);
    }
  }
  for (Size k = 0; k < n_points; ++k)
    for (Size view = 0; status[k] != ok && view < n_views; ++view) agreeing[view * n_points + k] = 0;
}

// ---- pixels to points ------------------------------------------------------------------------------------------------

// Linear triangulation of pixels, points_px (n_views, n_points, 2). rows: scratch, see normalise.
inline void locate_linear(const double* camera_from_world, const double* lenses, const double* points_px, Size n_views,
                          Size n_points, bool distorted, double* rows, double* points_m, std::int8_t* status) {
  normalise(lenses, points_px, n_views, n_points, distorted, rows);
  triangulate(camera_from_world, rows, n_views, n_points, points_m, status);
}

// Robust triangulation of pixels: the linear one starts the refinement. sd_px of a point. rows: scratch, n_views numbers
// more than normalise needs.
inline void locate(const double* camera_from_world, const double* lenses, const double* points_px, Size n_views,
                   Size n_points, bool distorted, double sd_px, int n_steps, double* rows, double* points_m,
                   double* cov_m2, unsigned char* agreeing, std::int8_t* status) {
  locate_linear(camera_from_world, lenses, points_px, n_views, n_points, distorted, rows, points_m, status);
  double* sd = rows + 2 * n_views * padded_points(n_points);
  // A start behind a camera comes from a wrong view: begin in front of the cameras instead, 3 m from their middle.
  double ahead_m[3] = {};
  for (Size view = 0; view < n_views; ++view) {
    const double *p = camera_from_world + 12 * view, *lens = lenses + kIntrinsics * view;
    sd[view] = sd_px / std::sqrt(lens[0] * lens[1]);
    double eye[3];
    find_eye(p, eye);
    for (int i = 0; i < 3; ++i) ahead_m[i] += (eye[i] + 3.0 * p[8 + i]) / double(n_views);
  }
  for (Size k = 0; k < n_points; ++k)
    if (status[k] != ok) std::memcpy(points_m + 3 * k, ahead_m, sizeof(ahead_m));
  refine(camera_from_world, rows, sd, n_views, n_points, n_steps, points_m, cov_m2, agreeing, status);
}

}  // namespace FUSION_ISA
}  // namespace fusion
