// From pixels to points in the world: undistortion, linear triangulation and its robust refinement. Plain C++17 over
// small_matrix.hpp; loops over arrays that the caller owns. Nothing is kept, nothing raised.
//
// Normalised image coordinates lie on the plane one unit in front of the camera, without distortion.
//
// Compiled once for each instruction set, into a namespace of its own: FUSION_ISA (see isa.hpp), hence without a guard.
#include "small_matrix.hpp"

namespace fusion {
namespace FUSION_ISA {

// A lens as the kernels read it; fusion/store/lenses.py lays it out and has the equations: fx, fy, cx, cy; k1, k2, p1, p2, k3,
// k4, k5, k6, s1, s2, s3, s4, or k1 to k4 of a fisheye; the kind; the squares of the largest usable radii, of a ray and in
// the picture.
constexpr Size kIntrinsics = 19;
enum LensNumber : Size { kCoefficients = 4, kKind = 16, kRayLimitSq = 17, kPictureLimitSq = 18 };
enum LensKind : int { kStraight = 0, kFiveCoefficients = 1, kFullBrown = 2, kFisheye = 3 };
FUSION_INLINE LensKind kind_of(const double* lens) { return LensKind(int(lens[kKind])); }

enum Status : std::int8_t { ok = 0, underconstrained = 1, behind_camera = 2 };

// Centre of a camera (3, 4) in the world: -R^T t.
FUSION_INLINE void find_eye(const double* p, double* out) {
  for (int i = 0; i < 3; ++i) out[i] = -(p[i] * p[3] + p[4 + i] * p[7] + p[8 + i] * p[11]);
}

// ---- the lens --------------------------------------------------------------------------------------------------------

// Groups of lanes that walk side by side: while one waits for a result, the others compute. 32 numbers in flight were the
// fastest with each instruction set.
constexpr Size kGroups = 32 / kLanes;

// A pixel of the picture is bent back by Newton's method, a lane each; the usual fixed-point iteration converges only near
// the centre. Each step doubles the number of correct digits, so where no lane moved by more than the square root of
// moved_sq, the next step would change nothing that matters; a pixel near a fold takes the most.
constexpr int kStepsMax = 8;

// Where a ray at (x, y) meets the picture, less (xd, yd), and the derivatives. L is a number or a lane, T its number.
template <class L, class T>
struct Bent {
  L fx, fy, xx, xy, yx, yy;  // xy: of fx by y.

  // Brown's model with k1, k2, p1, p2, k3 alone.
  FUSION_INLINE void by_five(const T* c, const L& x, const L& y, const L& xd, const L& yd) {
    const T k1 = c[0], k2 = c[1], p1 = c[2], p2 = c[3], k3 = c[4];
    const L r2 = x * x + y * y;
    const L radial = T(1) + r2 * (k1 + r2 * (k2 + r2 * k3));
    const L slope = T(2) * (k1 + r2 * (T(2) * k2 + r2 * (T(3) * k3)));  // d radial / d x = slope * x
    fx = x * radial + T(2) * p1 * x * y + p2 * (r2 + T(2) * x * x) - xd;
    fy = y * radial + p1 * (r2 + T(2) * y * y) + T(2) * p2 * x * y - yd;
    xx = radial + x * x * slope + T(2) * p1 * y + T(6) * p2 * x;
    xy = yx = x * y * slope + T(2) * p1 * x + T(2) * p2 * y;
    yy = radial + y * y * slope + T(6) * p1 * y + T(2) * p2 * x;
  }

  // Brown's model with all twelve.
  FUSION_INLINE void by_twelve(const T* c, const L& x, const L& y, const L& xd, const L& yd) {
    const T p1 = c[2], p2 = c[3], s1 = c[8], s2 = c[9], s3 = c[10], s4 = c[11];
    const L r2 = x * x + y * y;
    const L share = T(1) / (T(1) + r2 * (c[5] + r2 * (c[6] + r2 * c[7])));
    const L radial = (T(1) + r2 * (c[0] + r2 * (c[1] + r2 * c[4]))) * share;
    const L above = c[0] + r2 * (T(2) * c[1] + r2 * (T(3) * c[4])),
            below = c[5] + r2 * (T(2) * c[6] + r2 * (T(3) * c[7]));
    const L slope = T(2) * (above - radial * below) * share;
    const L prism_x = T(2) * (s1 + T(2) * s2 * r2), prism_y = T(2) * (s3 + T(2) * s4 * r2);
    fx = x * radial + T(2) * p1 * x * y + p2 * (r2 + T(2) * x * x) + r2 * (s1 + r2 * s2) - xd;
    fy = y * radial + p1 * (r2 + T(2) * y * y) + T(2) * p2 * x * y + r2 * (s3 + r2 * s4) - yd;
    const L both = x * y * slope + T(2) * p1 * x + T(2) * p2 * y;
    xx = radial + x * x * slope + T(2) * p1 * y + T(6) * p2 * x + x * prism_x;
    xy = both + y * prism_x;
    yx = both + x * prism_y;
    yy = radial + y * y * slope + T(6) * p1 * y + T(2) * p2 * x + y * prism_y;
  }
};

// Angle off the axis of a fisheye bent into the picture, and its derivative.
template <class L, class T>
FUSION_INLINE void bend_angle(const T* c, const L& theta, L& bent, L& slope) {
  const L t2 = theta * theta;
  bent = theta * (T(1) + t2 * (c[0] + t2 * (c[1] + t2 * (c[2] + t2 * c[3]))));
  slope = T(1) + t2 * (T(3) * c[0] + t2 * (T(5) * c[1] + t2 * (T(7) * c[2] + t2 * (T(9) * c[3]))));
}

// tan(theta) for 0 <= theta <= 1.48 by Lambert's continued fraction at half the angle, where eight levels are exact to the
// last digit. There is no tangent of a vector.
template <class L, class T>
FUSION_INLINE L tangent(const L& theta) {
  const L half = T(0.5) * theta, u2 = half * half;
  L above = L{} + T(15), below = L{} + T(1);
  for (int odd = 13; odd >= 1; odd -= 2) {
    const L next = T(odd) * above - u2 * below;
    below = above;
    above = next;
  }
  // tan(theta / 2) = half * below / above; double it by 2 t / (1 - t^2).
  return T(2) * half * below * above / (above * above - u2 * below * below);
}

// A pixel that Newton's method left without a ray, in the order of certainty: outside of what the lens shows; else a
// bracketed search along the radius, which cannot fail, and Newton's method from there. False where there is no ray.
inline bool find_ray(const double* lens, double xd, double yd, double& x, double& y, double& stretch) {
  const double rd = std::sqrt(xd * xd + yd * yd);
  const double* c = lens + kCoefficients;
  if (!(rd * rd <= lens[kPictureLimitSq]) || !(rd < 1e3)) return false;
  const bool fisheye = kind_of(lens) == kFisheye;
  // Beyond a radius of ten, 84 degrees off the axis, no lens of a store looks.
  double low = 0.0, high = lens[kRayLimitSq] < 100.0 ? std::sqrt(lens[kRayLimitSq]) : 10.0;
  if (fisheye) high = std::atan(high);
  for (int step = 0; step < 60; ++step) {
    const double r = 0.5 * (low + high), r2 = r * r;
    double bent, slope;
    if (fisheye) bend_angle<double, double>(c, r, bent, slope);
    else bent = r * (1 + r2 * (c[0] + r2 * (c[1] + r2 * c[4]))) / (1 + r2 * (c[5] + r2 * (c[6] + r2 * c[7])));
    (bent < rd ? low : high) = r;
  }
  const double r = fisheye ? std::tan(low) : low, scale = rd > 0.0 ? r / rd : 1.0;
  x = xd * scale;
  y = yd * scale;
  if (fisheye) {
    double bent, slope;
    bend_angle<double, double>(c, low, bent, slope);
    stretch = scale * (1.0 + r * r) / slope;
    return std::fabs(bent - rd) < 1e-8;
  }
  Bent<double, double> bent;
  for (int step = 0; step < 20; ++step) {
    bent.by_twelve(c, x, y, xd, yd);
    const double det = bent.xx * bent.yy - bent.xy * bent.yx;
    if (!(det > 1e-9)) return false;
    stretch = 1.0 / det;
    x -= (bent.yy * bent.fx - bent.xy * bent.fy) * stretch;
    y -= (bent.xx * bent.fy - bent.yx * bent.fx) * stretch;
  }
  bent.by_twelve(c, x, y, xd, yd);
  return bent.fx * bent.fx + bent.fy * bent.fy < 1e-16 && x * x + y * y <= lens[kRayLimitSq];
}

// Pixels of one camera on their way to normalised coordinates, a lane each. L is Lane or LaneF, T its number.
template <class L, class T>
struct Undistortion {
  L x, y, xd, yd;
  // How much larger a piece of the picture is among normalised coordinates than at the middle; only for wide lenses.
  L stretch;

  FUSION_INLINE void begin(const double* lens, const L& u_px, const L& v_px) {
    x = xd = (u_px - T(lens[2])) * T(1.0 / lens[0]);
    y = yd = (v_px - T(lens[3])) * T(1.0 / lens[1]);
  }

  // Returns the lanes that moved by more than the square root of moved_sq. Beyond the model's turning point there is no
  // solution: such a lane becomes NaN.
  template <bool twelve>
  FUSION_INLINE auto step(const T* c, T moved_sq) -> decltype(mask_of(L{})) {
    Bent<L, T> bent;
    if constexpr (twelve) bent.by_twelve(c, x, y, xd, yd);
    else bent.by_five(c, x, y, xd, yd);
    const L det = bent.xx * bent.yy - bent.xy * bent.yx;
    const L inverse = T(1) / (det > T(1e-6) ? det : L{} + T(std::nan("")));
    const L dx = (bent.yy * bent.fx - bent.xy * bent.fy) * inverse;
    const L dy = (bent.xx * bent.fy - bent.yx * bent.fx) * inverse;
    x -= dx;
    y -= dy;
    if constexpr (twelve) stretch = inverse;
    return (dx * dx + dy * dy) > moved_sq;
  }

  // The same for the angle of a fisheye, in x.
  FUSION_INLINE auto step_angle(const T* c, T limit, T moved_sq) -> decltype(mask_of(L{})) {
    L bent, slope;
    bend_angle<L, T>(c, x, bent, slope);
    const L moved = (bent - y) / slope;
    x = lesser(x - moved, L{} + limit);
    return moved * moved > moved_sq;
  }

  // Lanes without a ray, or with one on another branch of the model, once more in double precision and slowly.
  FUSION_INLINE void search(const double* lens, const decltype(mask_of(L{}))& lost) {
    for (Size k = 0; k < sizeof(L) / sizeof(T); ++k) {
      // An unknown pixel is NaN already.
      if (!lost[k] || std::isnan(xd[k]) || std::isnan(yd[k])) continue;
      double ray_x, ray_y, of_stretch = 1.0;
      const bool found = find_ray(lens, xd[k], yd[k], ray_x, ray_y, of_stretch);
      x[k] = found ? T(ray_x) : T(std::nan(""));
      y[k] = found ? T(ray_y) : T(std::nan(""));
      stretch[k] = T(of_stretch);
    }
  }
};

// Newton's steps for Brown's model.
template <bool twelve, class L, class T>
FUSION_INLINE void undistort_brown(const double* lens, Undistortion<L, T>* groups, Size n_groups, T moved_sq) {
  T c[12];
  for (Size k = 0; k < (twelve ? 12 : 5); ++k) c[k] = T(lens[kCoefficients + k]);
  auto moving = mask_of(L{});
  for (int step = 0; step < kStepsMax; ++step) {
    moving = mask_of(L{});
    for (Size g = 0; g < n_groups; ++g) moving |= groups[g].template step<twelve>(c, moved_sq);
    if (step > 0 && !any(moving)) break;
  }
  // Few groups have a lane that still moves, is lost, or met the model where it comes back after its fold.
  const T limit_sq = T(lens[kRayLimitSq]);
  if (!any(moving) && limit_sq > T(1e30)) return;
  for (Size g = 0; g < n_groups; ++g) {
    auto& group = groups[g];
    auto lost = ~(group.x * group.x + group.y * group.y <= limit_sq);
    if (any(moving)) lost |= group.template step<twelve>(c, moved_sq);
    if (any(lost)) group.search(lens, lost);
  }
}

// A fisheye bends the angle off the axis alone.
template <class L, class T>
inline void undistort_fisheye(const double* lens, Undistortion<L, T>* groups, Size n_groups, T moved_sq) {
  T c[4];
  for (Size k = 0; k < 4; ++k) c[k] = T(lens[kCoefficients + k]);
  const T limit_sq = T(lens[kRayLimitSq]), limit = T(std::atan(std::sqrt(lens[kRayLimitSq])));
  const L one = L{} + T(1);
  for (Size g = 0; g < n_groups; ++g) {
    auto& group = groups[g];
    // x is the angle, y the bent angle, until all have been found.
    group.y = root(group.xd * group.xd + group.yd * group.yd);
    group.x = lesser(group.y, L{} + limit);
  }
  auto moving = mask_of(L{});
  for (int step = 0; step < kStepsMax; ++step) {
    moving = mask_of(L{});
    for (Size g = 0; g < n_groups; ++g) moving |= groups[g].step_angle(c, limit, moved_sq);
    if (step > 0 && !any(moving)) break;
  }
  for (Size g = 0; g < n_groups; ++g) {
    auto& group = groups[g];
    auto lost = ~(group.y * group.y <= T(lens[kPictureLimitSq]));
    if (any(moving)) lost |= group.step_angle(c, limit, moved_sq);
    L bent, slope;
    bend_angle<L, T>(c, group.x, bent, slope);
    const L radius = tangent<L, T>(group.x), on_axis = group.y;
    const L scale = on_axis > T(1e-12) ? radius / (on_axis > T(1e-12) ? on_axis : one) : one;
    group.stretch = scale * (one + radius * radius) / slope;
    group.x = group.xd * scale;
    group.y = group.yd * scale;
    lost |= ~(group.x * group.x + group.y * group.y <= limit_sq);
    if (any(lost)) group.search(lens, lost);
  }
}

// Bend all groups of one camera back; pixels without a ray become NaN.
template <class L, class T>
FUSION_INLINE void undistort_groups(const double* lens, Undistortion<L, T>* groups, Size n_groups, T moved_sq) {
  switch (kind_of(lens)) {
    case kStraight:
      return;
    case kFiveCoefficients:
      return undistort_brown<false>(lens, groups, n_groups, moved_sq);
    case kFullBrown:
      return undistort_brown<true>(lens, groups, n_groups, moved_sq);
    case kFisheye:
      return undistort_fisheye(lens, groups, n_groups, moved_sq);
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
    // A pixel of which one coordinate is unknown is unknown.
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
