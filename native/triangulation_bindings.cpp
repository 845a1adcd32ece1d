// The only file that includes pybind11. Arrays come in C-contiguous and are never converted: `noconvert` in spirit, by
// reading raw pointers of checked types. Shapes are the caller's duty; see fusion/_kernels/triangulation.pyi.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include "isa.hpp"

namespace py = pybind11;

namespace {

// Unchecked py::array: 280 ns for six arguments against 1.3 us for array_t, which checks and may convert.
template <class T>
T* data(const py::array& array) {
  return static_cast<T*>(const_cast<void*>(array.data()));
}

using In = const py::array&;

const fusion::Isa isa = fusion::best_isa();
const fusion::Kernels& kernels = isa.kernels;

std::int64_t prepare(In keypoints, In start, In lenses, double sd_px, double score_min, In x, In y, In var, In seen) {
  const std::size_t n_views = start.shape(0) - 1, n_joints = keypoints.shape(1), n_padded = x.shape(1);
  const auto *from = data<float>(keypoints);
  const auto *first = data<std::int64_t>(start);
  const auto *lens = data<double>(lenses);
  auto *px = data<double>(x), *py_ = data<double>(y), *pv = data<double>(var), *ps = data<double>(seen);
  py::gil_scoped_release release;
  return kernels.prepare(from, first, lens, n_views, n_joints, n_padded, sd_px, score_min, px, py_, pv, ps);
}

void undistort(In points_px, In lenses, In out) {
  const std::size_t n_views = points_px.shape(0), n_points = points_px.shape(1);
  const auto *from = data<double>(points_px), *lens = data<double>(lenses);
  auto *to = data<double>(out);
  py::gil_scoped_release release;
  for (std::size_t view = 0; view < n_views; ++view)
    kernels.undistort(lens + 9 * view, from + 2 * view * n_points, n_points, to + 2 * view * n_points);
}

void costs(In camera_from_world, In dt_s, In start, In x, In y, In var, In seen, In mean, In cov, In rows, In body_var,
           double cap, double joints_min, double var_max, double never, In out) {
  const fusion::Detections detections{data<double>(x), data<double>(y), data<double>(var), data<double>(seen)};
  const std::size_t n_views = start.shape(0) - 1, n_rows = rows.shape(0), n_padded = mean.shape(2);
  const auto *cameras = data<double>(camera_from_world), *late = data<double>(dt_s), *body = data<double>(body_var);
  const auto *m = data<double>(mean), *c = data<double>(cov);
  const auto *first = data<std::int64_t>(start), *which = data<std::int64_t>(rows);
  auto *to = data<double>(out);
  py::gil_scoped_release release;
  kernels.costs(cameras, late, first, detections, m, c, which, n_views, n_rows, n_padded, body, cap, joints_min,
                var_max, never, to);
}

void triangulate(In camera_from_world, In points, In points_m, In status) {
  const std::size_t n_views = points.shape(0), n_points = points.shape(2);
  const auto *cameras = data<double>(camera_from_world), *from = data<double>(points);
  auto *to = data<double>(points_m);
  auto *said = data<std::int8_t>(status);
  py::gil_scoped_release release;
  kernels.triangulate(cameras, from, n_views, n_points, to, said);
}

void refine(In camera_from_world, In points, In sd, int n_steps, In points_m, In cov_m2, In weights) {
  const std::size_t n_views = points.shape(0), n_points = points.shape(2);
  const auto *cameras = data<double>(camera_from_world), *from = data<double>(points), *deviation = data<double>(sd);
  auto *to = data<double>(points_m), *cov = data<double>(cov_m2), *share = data<double>(weights);
  py::gil_scoped_release release;
  kernels.refine(cameras, from, deviation, n_views, n_points, n_steps, to, cov, share);
}

void predict(In mean, In cov, In rows, double dt_s, double fade_s, In acceleration) {
  const std::size_t n_rows = rows.shape(0), n_padded = mean.shape(2);
  auto *m = data<double>(mean), *c = data<double>(cov);
  const auto *which = data<std::int64_t>(rows);
  const auto *q = data<double>(acceleration);
  py::gil_scoped_release release;
  kernels.predict(m, c, which, n_rows, n_padded, dt_s, fade_s, q);
}

void update(In camera_from_world, In dt_s, In x, In y, In var, In seen, In rows, In detection_of, In body_var,
            In acceleration, In floor_precision, In axis_precision, In height_precision, In heights_m, double share,
            double learning, double freedom, int n_steps, int n_plain, In mean, In cov, In residual_sum,
            In residual_count, In support) {
  const fusion::Views views{data<double>(camera_from_world), data<double>(dt_s),
                            static_cast<std::size_t>(dt_s.shape(0))};
  const fusion::Detections detections{data<double>(x), data<double>(y), data<double>(var), data<double>(seen)};
  const fusion::Anchors anchors{data<double>(axis_precision), data<double>(height_precision), data<double>(heights_m),
                                share, learning};
  const std::size_t n_rows = rows.shape(0), n_padded = mean.shape(2);
  const auto *which = data<std::int64_t>(rows), *matched = data<std::int64_t>(detection_of);
  const auto *body = data<double>(body_var), *on_floor = data<double>(floor_precision);
  const auto *q = data<double>(acceleration);
  auto *m = data<double>(mean), *c = data<double>(cov);
  auto *sums = data<double>(residual_sum), *counts = data<double>(residual_count), *held = data<double>(support);
  py::gil_scoped_release release;
  kernels.update(views, detections, which, matched, n_rows, n_padded, body, q, on_floor, anchors, freedom, n_steps, n_plain, m, c,
                 sums, counts, held);
}

void hold_limbs(In mean, In cov, In rows, In limbs, In lengths_m, In support, double sd_m, double own_var,
                double learning) {
  const std::size_t n_rows = rows.shape(0), n_padded = mean.shape(2), n_limbs = limbs.shape(0);
  auto *m = data<double>(mean), *c = data<double>(cov), *lengths = data<double>(lengths_m);
  const auto *which = data<std::int64_t>(rows), *pairs = data<std::int64_t>(limbs);
  const auto *held = data<double>(support);
  py::gil_scoped_release release;
  kernels.hold_limbs(m, c, which, n_rows, n_padded, pairs, n_limbs, lengths, held, sd_m, own_var, learning);
}

void describe(In mean, In cov, In rows, In share, double sd_max_m, In joints_m, In joints_sd_m, In position_m,
              In position_sd_m) {
  const std::size_t n_rows = rows.shape(0), n_joints = joints_m.shape(1), n_padded = mean.shape(2);
  const auto *m = data<double>(mean), *c = data<double>(cov), *part = data<double>(share);
  const auto *which = data<std::int64_t>(rows);
  auto *joints = data<double>(joints_m), *sd = data<double>(joints_sd_m);
  auto *place = data<double>(position_m), *place_sd = data<double>(position_sd_m);
  py::gil_scoped_release release;
  kernels.describe(m, c, which, n_rows, n_joints, n_padded, part, sd_max_m, joints, sd, place, place_sd);
}

}  // namespace

PYBIND11_MODULE(triangulation, m) {
  m.doc() = "From what cameras saw to points and people in the world; arrays in, preallocated arrays out.";
  m.attr("instruction_set") = isa.name;
  m.def("prepare", &prepare);
  m.def("undistort", &undistort);
  m.def("costs", &costs);
  m.def("triangulate", &triangulate);
  m.def("refine", &refine);
  m.def("predict", &predict);
  m.def("update", &update);
  m.def("hold_limbs", &hold_limbs);
  m.def("describe", &describe);
}
