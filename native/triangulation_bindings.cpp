// The Python module of the native kernels, the only file that includes pybind11. Arrays come in C-contiguous and are never
// converted: raw pointers of checked types are read. Shapes are the caller's duty; see fusion/_kernels/triangulation.pyi.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <initializer_list>
#include <memory>
#include <string>
#include <vector>

#include "isa.hpp"

namespace py = pybind11;

namespace {

// Unchecked py::array: six arguments take 280 ns, against 1.3 us as array_t, which checks and may convert.
template <class T>
T* data(const py::array& array) {
  return static_cast<T*>(const_cast<void*>(array.data()));
}

using In = const py::array&;
using fusion::Int;
using fusion::Size;

const fusion::Isa isa = fusion::best_isa();
const fusion::Kernels& kernels = isa.kernels;

// Rows of normalised coordinates, and a number for each view: what locating points needs besides its arrays.
std::unique_ptr<double[]> rows_of(Size n_views, Size n_points) {
  return std::unique_ptr<double[]>(new double[n_views * (2 * (n_points + fusion::kLanesMax) + 1)]);
}

void undistort(In points_px, In lenses, In out) {
  const Size n_views = points_px.shape(0), n_points = points_px.shape(1);
  const auto *from = data<double>(points_px), *lens = data<double>(lenses);
  auto* to = data<double>(out);
  py::gil_scoped_release release;
  kernels.undistort(lens, from, n_views, n_points, rows_of(n_views, n_points).get(), to);
}

void locate_linear(In camera_from_world, In lenses, In points_px, bool distorted, In points_m, In status) {
  const Size n_views = points_px.shape(0), n_points = points_px.shape(1);
  const auto *cameras = data<double>(camera_from_world), *lens = data<double>(lenses), *from = data<double>(points_px);
  auto* to = data<double>(points_m);
  auto* codes = data<std::int8_t>(status);
  py::gil_scoped_release release;
  kernels.locate_linear(cameras, lens, from, n_views, n_points, distorted, rows_of(n_views, n_points).get(), to, codes);
}

void locate(In camera_from_world, In lenses, In points_px, bool distorted, double sd_px, int n_steps, In points_m,
            In cov_m2, In agreeing, In status) {
  const Size n_views = points_px.shape(0), n_points = points_px.shape(1);
  const auto *cameras = data<double>(camera_from_world), *lens = data<double>(lenses), *from = data<double>(points_px);
  auto *to = data<double>(points_m), *cov = data<double>(cov_m2);
  auto* agrees = reinterpret_cast<unsigned char*>(data<bool>(agreeing));
  auto* codes = data<std::int8_t>(status);
  py::gil_scoped_release release;
  kernels.locate(cameras, lens, from, n_views, n_points, distorted, sd_px, n_steps, rows_of(n_views, n_points).get(),
                 to, cov, agrees, codes);
}

void place_by_height(In camera, In x, In y, In seen, In heights_m, double stature_sd, In out) {
  kernels.place_by_height(data<double>(camera), data<float>(x), data<float>(y), data<float>(seen),
                          data<double>(heights_m), Size(x.shape(0)), stature_sd, data<double>(out));
}

// The detections of `pair_scores` and `pair_costs`, and the scratch of comparing them.
struct Pairs {
  std::unique_ptr<double[]> scratch;
  std::unique_ptr<float[]> directions, tables;
  fusion::PairInput input;
  fusion::PairModel model;

  Pairs(In free, In view_of, In dt_s, In x, In y, In var, In seen, In camera_from_world, In body_var, In heights_m,
        const py::tuple& settings) {
    const Size n = free.shape(0), n_padded = body_var.shape(0), wide = n_padded + fusion::kLanesMax;
    scratch.reset(new double[fusion::kPairNumbers * n]);
    directions.reset(new float[fusion::pair_floats(n, n_padded)]());
    tables.reset(new float[3 * wide]());
    float *of_body = tables.get(), *usual_m = of_body + wide, *odd_per_m = usual_m + wide;
    const auto *heights = data<double>(heights_m), *body = data<double>(body_var);
    for (Size j = 0; j < n_padded; ++j) {
      of_body[j] = float(body[j]);
      usual_m[j] = float(heights[2 * j]);
      odd_per_m[j] = float(1.0 / (2.0 * heights[2 * j + 1] + 0.1));
    }
    input = {data<Int>(free),
             data<Int>(view_of),
             data<double>(dt_s),
             data<float>(x),
             data<float>(y),
             data<float>(var),
             data<float>(seen),
             of_body,
             usual_m,
             odd_per_m,
             data<double>(camera_from_world),
             heights,
             n,
             n_padded,
             scratch.get(),
             directions.get()};
    double numbers[8];
    for (Size i = 0; i < 8; ++i) numbers[i] = py::cast<double>(settings[i]);
    std::memcpy(&model, numbers, sizeof(model));
  }
};

void pair_scores(In free, In view_of, In dt_s, In x, In y, In var, In seen, In camera_from_world, In body_var,
                 In heights_m, const py::tuple& settings, In out, In centre) {
  const Pairs pairs(free, view_of, dt_s, x, y, var, seen, camera_from_world, body_var, heights_m, settings);
  auto* to = data<double>(out);
  auto* places = data<float>(centre);
  py::gil_scoped_release release;
  kernels.pair_scores(pairs.input, pairs.model, to, places);
}

void pair_costs(In free, In view_of, In dt_s, In x, In y, In var, In seen, In camera_from_world, In body_var,
                In heights_m, const py::tuple& settings, double joints_min, In out) {
  const Pairs pairs(free, view_of, dt_s, x, y, var, seen, camera_from_world, body_var, heights_m, settings);
  const Size n_first = out.shape(0);
  auto* to = data<double>(out);
  py::gil_scoped_release release;
  kernels.pair_costs(pairs.input, pairs.model, joints_min, n_first, to);
}

// A Workspace whose arrays belong to Python: bound and checked once, and kept alive as long as the object.
class BoundWorkspace {
 public:
  BoundWorkspace(const py::dict& arrays, const py::dict& settings) : arrays_(arrays), settings_(settings) {
    bind_arrays();
    read_settings();
    allocate_scratch();
  }

  // Bring a set's frames (objects with t_ns, camera and keypoints) into the arrays; view_of gives the view of each camera
  // name. Returns the newest time among known cameras, and how many of them have a frame, and how many detections there
  // are, keypoints were broken, detections exceeded the limit, frames were of unknown cameras, and frames were second
  // ones of their camera; None where keypoints are not C-contiguous float32 (n, n_joints, 3).
  //
  // Attributes are read here, not by the caller: a set of frames has a hundred of them.
  py::object take(const py::list& frames, const py::dict& view_of) {
    Int newest = 0, n_unknown = 0, n_second = 0, n_known = 0;
    for (Size view = 0; view < ws_.n_views; ++view) {
      ws_.has_frame[view] = 0;
      ws_.dt_s[view] = 0.0;
    }
    for (const py::handle frame : frames) {
      const py::object camera = frame.attr(camera_);
      PyObject* known = PyDict_GetItem(view_of.ptr(), camera.ptr());
      if (known == nullptr) {
        ++n_unknown;
        continue;
      }
      const Size view = PyLong_AsSize_t(known);
      const Int t_ns = py::cast<Int>(frame.attr(t_ns_));
      newest = n_known++ == 0 || t_ns > newest ? t_ns : newest;
      if (ws_.has_frame[view]) {
        // The newer picture replaces the older one: a view counts once in a set.
        ++n_second;
        if (times_[view] >= t_ns) continue;
      }
      py::object keypoints = frame.attr(keypoints_);
      if (!py::isinstance<py::array_t<float>>(keypoints)) return py::none();
      const auto array = py::reinterpret_borrow<py::array>(keypoints);
      if (array.ndim() != 3 || array.shape(1) != py::ssize_t(ws_.n_joints) || array.shape(2) != 3 ||
          !(array.flags() & py::array::c_style))
        return py::none();
      ws_.has_frame[view] = 1;
      times_[view] = t_ns;
      keypoints_of_[view] = data<float>(array);
      counts_[view] = array.shape(0);
      held_[view] = std::move(keypoints);
    }
    Int n = 0, n_excess = 0, n_broken = 0;
    for (Size view = 0; view < ws_.n_views; ++view) {
      Int n_here = ws_.has_frame[view] ? counts_[view] : 0;
      if (ws_.has_frame[view]) ws_.dt_s[view] = double(times_[view] - newest) * 1e-9;
      if (n_here > ws_.detections_per_frame_max) {
        n_excess += n_here - ws_.detections_per_frame_max;
        n_here = ws_.detections_per_frame_max;
      }
      ws_.start[view] = n;
      for (Int d = n; d < n + n_here; ++d) ws_.view_of[d] = Int(view);
      n += n_here;
    }
    ws_.start[ws_.n_views] = n;
    if (n_known) {
      py::gil_scoped_release release;
      n_broken = kernels.prepare(ws_, keypoints_of_.data());
    }
    return py::make_tuple(newest, n_known - n_second, n, n_broken, n_excess, n_unknown, n_second);
  }

  void predict(In rows, double dt_s) {
    const auto* which = data<Int>(rows);
    const Size n = rows.shape(0);
    py::gil_scoped_release release;
    kernels.predict(ws_, which, n, dt_s);
  }

  void costs(In rows, double gate, In out) {
    const auto* which = data<Int>(rows);
    auto* to = data<double>(out);
    const Size n = rows.shape(0);
    py::gil_scoped_release release;
    kernels.costs(ws_, which, n, gate, to);
  }

  void match(In rows) {
    const auto* which = data<Int>(rows);
    const Size n = rows.shape(0);
    py::gil_scoped_release release;
    kernels.match(ws_, which, n);
  }

  void measure(In rows, In detection_of, double share, double learning, Int n_steps, Int n_plain, Int tally, In sums,
               In counts) {
    const auto *which = data<Int>(rows), *matched = data<Int>(detection_of);
    const bool wanted = sums.size() > 0;
    const fusion::Measurement how{share,
                                  learning,
                                  n_steps,
                                  n_plain,
                                  tally,
                                  wanted ? data<double>(sums) : nullptr,
                                  wanted ? data<double>(counts) : nullptr};
    const Size n = rows.shape(0);
    py::gil_scoped_release release;
    kernels.measure(ws_, which, matched, n, how);
  }

  Int follow(In rows, Int t_ns, double step_s, double share, double learning, Int n_steps, Int tally, In joints_m,
             In joints_sd_m, In position_m, In position_sd_m) {
    const auto* which = data<Int>(rows);
    const fusion::Measurement how{share, learning, n_steps, 0, tally, nullptr, nullptr};
    auto *joints = data<double>(joints_m), *sd = data<double>(joints_sd_m);
    auto *place = data<double>(position_m), *place_sd = data<double>(position_sd_m);
    const Size n = rows.shape(0);
    py::gil_scoped_release release;
    return kernels.follow(ws_, which, n, t_ns, step_s, how, joints, sd, place, place_sd);
  }

  void describe(In rows, In joints_m, In joints_sd_m, In position_m, In position_sd_m) {
    const auto* which = data<Int>(rows);
    auto *joints = data<double>(joints_m), *sd = data<double>(joints_sd_m);
    auto *place = data<double>(position_m), *place_sd = data<double>(position_sd_m);
    const Size n = rows.shape(0);
    py::gil_scoped_release release;
    kernels.describe(ws_, which, n, joints, sd, place, place_sd);
  }

 private:
  void bind_arrays() {
    bind("camera_from_world", ws_.camera_from_world);
    bind("lenses", ws_.lenses);
    bind("keys", ws_.keys);
    bind("limbs", ws_.limbs);
    bind("body_var", ws_.body_var);
    bind("acceleration", ws_.acceleration);
    bind("floor_precision", ws_.floor_precision);
    bind("axis_precision", ws_.axis_precision);
    bind("height_precision", ws_.height_precision);
    bind("trunk_weight", ws_.trunk_weight);
    bind("doubt_var", ws_.doubt_var);
    bind("dt_s", ws_.dt_s);
    bind_flags("has_frame", ws_.has_frame);
    bind("start", ws_.start);
    bind("view_of", ws_.view_of);
    bind("x", ws_.x);
    bind("y", ws_.y);
    bind("var", ws_.var);
    bind("seen", ws_.seen);
    bind("appearance", ws_.appearance);
    bind("mean", ws_.mean);
    bind("cov", ws_.cov);
    bind("heights_m", ws_.heights_m);
    bind("limb_lengths_m", ws_.limb_lengths_m);
    bind("track_appearance", ws_.track_appearance);
    bind("track_id", ws_.track_id);
    bind("seen_ns", ws_.seen_ns);
    bind("undoubted_ns", ws_.undoubted_ns);
    bind("multi_view_sets", ws_.multi_view_sets);
    bind("single_view_sets", ws_.single_view_sets);
    bind_flags("confirmed", ws_.confirmed);
    bind("noise", ws_.noise);
    bind("noise_total", ws_.noise_total);
    bind("noise_count", ws_.noise_count);
    bind("track_of", ws_.track_of);
    bind("detection_of", ws_.detection_of);
    ws_.n_views = size("camera_from_world", 0);
    ws_.n_joints = size("trunk_weight", 0);
    ws_.n_padded = size("body_var", 0);
    ws_.n_limbs = size("limbs", 0);
    ws_.capacity = size("mean", 0);
    ws_.appearance_dim = size("track_appearance", 1);
  }

  void read_settings() {
    read("keypoint_sd_px", ws_.keypoint_sd_px);
    read("score_min", ws_.score_min);
    read("joint_cost_cap", ws_.joint_cost_cap);
    read("joints_min", ws_.joints_min);
    read("prediction_var_max", ws_.prediction_var_max);
    read("match_gate", ws_.match_gate);
    read("duplicate_gate", ws_.duplicate_gate);
    read("appearance_scale", ws_.appearance_scale);
    read("degrees_of_freedom", ws_.degrees_of_freedom);
    read("velocity_decay_s", ws_.velocity_decay_s);
    read("limb_sd_m", ws_.limb_sd_m);
    read("limb_own_var", ws_.limb_own_var);
    read("joint_sd_max_m", ws_.joint_sd_max_m);
    read("noise_prior", ws_.noise_prior);
    read("noise_fade_s", ws_.noise_fade_s);
    read("noise_share", ws_.noise_share);
    read("noise_min", ws_.noise_min);
    read("noise_max", ws_.noise_max);
    read("position_sd_max_m", ws_.position_sd_max_m);
    read("coasting_max_s", ws_.coasting_max_s);
    read("tentative_max_s", ws_.tentative_max_s);
    read("doubt_max_s", ws_.doubt_max_s);
    read("noise_every", ws_.noise_every);
    read("detections_per_frame_max", ws_.detections_per_frame_max);
  }

  void allocate_scratch() {
    using namespace fusion;
    const Size capacity = ws_.capacity, wide = (capacity + kKeys - 1) / kKeys * kKeys, n_views = ws_.n_views;
    const Size most = Size(ws_.detections_per_frame_max);
    if (most > kSide || ws_.n_padded > 32)
      throw py::value_error("want at most 64 detections a frame and 32 joints, got " + std::to_string(most) + " and " +
                            std::to_string(ws_.n_padded));
    keypoints_of_.resize(n_views);
    times_.resize(n_views);
    counts_.resize(n_views);
    held_.resize(n_views);
    ws_.points_row = most * ws_.n_joints + 4 * kKeys;  // Whole vectors are read and written beyond the last.
    share_out<float>(floats_, {{&ws_.seen_keys, kSeenKeys * most * n_views},
                               {&ws_.bounds, kBounds * most * n_views},
                               {&ws_.state_keys, kStateKeys * capacity},
                               {&ws_.reach, kReach * wide},
                               {&ws_.projected, 4 * kKeys * wide},
                               {&ws_.windows, 4 * wide},
                               {&ws_.points, 4 * ws_.points_row},
                               {&ws_.fits, wide}});
    share_out<Int>(ints_, {{&ws_.pair_track, most * capacity},
                           {&ws_.pair_detection, most * capacity},
                           {&ws_.list, 6 * capacity + 8 * kSide + 3},
                           {&ws_.matched, 2 * n_views},
                           {&ws_.shared, 9 * n_views},
                           {&ws_.shown, capacity},
                           {&ws_.near, wide}});
    share_out<double>(doubles_, {{&ws_.pair_cost, most * capacity},
                                 {&ws_.dense, kSide * capacity + 2 * (capacity + kSide + 1)},
                                 {&ws_.observations, kObservation * n_views},
                                 {&ws_.support, capacity * ws_.n_padded},
                                 {&ws_.blend, ws_.appearance_dim},
                                 {&ws_.turned, 28 * kLanesMax * ws_.n_padded}});
  }

  py::array array(const char* name) const {
    if (!arrays_.contains(name)) throw py::value_error(std::string("want an array '") + name + "', got none");
    return py::array(arrays_[name]);
  }

  Size size(const char* name, int axis) const { return Size(array(name).shape(axis)); }

  template <class T>
  void bind(const char* name, T*& to) {
    const py::array bound = array(name);
    using Element = std::remove_const_t<T>;
    if (!py::isinstance<py::array_t<Element>>(bound) || !(bound.flags() & py::array::c_style))
      throw py::value_error(std::string(name) + ": want a C-contiguous array of " +
                            std::string(py::str(py::dtype::of<Element>())) + ", got " +
                            std::string(py::str(bound.dtype())));
    to = data<T>(bound);
  }

  void bind_flags(const char* name, unsigned char*& to) {
    bool* flags = nullptr;
    bind(name, flags);
    to = reinterpret_cast<unsigned char*>(flags);
  }

  template <class T>
  void read(const char* name, T& to) const {
    if (!settings_.contains(name)) throw py::value_error(std::string("want a setting '") + name + "', got none");
    to = py::cast<T>(settings_[name]);
  }

  template <class T>
  struct Part {
    T** to;
    Size size;
  };

  // One buffer for all scratch of a type; parts begin at cache lines.
  template <class T>
  void share_out(std::vector<T>& buffer, std::initializer_list<Part<T>> parts) {
    constexpr Size line = 64 / sizeof(T);
    Size total = line;
    for (const auto& part : parts) total += (part.size + line - 1) / line * line;
    buffer.assign(total, T{});
    const auto at = reinterpret_cast<std::uintptr_t>(buffer.data());
    T* next = reinterpret_cast<T*>((at + 63) / 64 * 64);
    for (const auto& part : parts) {
      *part.to = next;
      next += (part.size + line - 1) / line * line;
    }
  }

  py::dict arrays_, settings_;
  fusion::Workspace ws_{};
  // Per view: keypoints of its frame, the array that holds them, its time and its number of detections.
  std::vector<const float*> keypoints_of_;
  std::vector<py::object> held_;
  std::vector<Int> times_, counts_;
  const py::str camera_{"camera"}, t_ns_{"t_ns"}, keypoints_{"keypoints"};
  std::vector<float> floats_;
  std::vector<Int> ints_;
  std::vector<double> doubles_;
};

}  // namespace

// Calls share no state, so a free-threaded interpreter keeps its GIL off; each engine belongs to one thread.
PYBIND11_MODULE(triangulation, m, py::mod_gil_not_used()) {
  m.doc() = "Triangulation and tracking: pixels to points and people in the world; arrays in, preallocated arrays out.";
  m.attr("instruction_set") = isa.name;
  m.def("undistort", &undistort);
  m.def("locate_linear", &locate_linear);
  m.def("locate", &locate);
  m.def("place_by_height", &place_by_height);
  m.def("pair_scores", &pair_scores);
  m.def("pair_costs", &pair_costs);
  py::class_<BoundWorkspace>(m, "Workspace")
      .def(py::init<const py::dict&, const py::dict&>())
      .def("take", &BoundWorkspace::take)
      .def("predict", &BoundWorkspace::predict)
      .def("costs", &BoundWorkspace::costs)
      .def("match", &BoundWorkspace::match)
      .def("measure", &BoundWorkspace::measure)
      .def("follow", &BoundWorkspace::follow)
      .def("describe", &BoundWorkspace::describe);
  m.attr("NEVER") = fusion::kNever;
  m.attr("IMPOSSIBLE") = fusion::kImpossible;
  m.attr("UNSURE") = int(fusion::kUnsure);
  m.attr("UNNAMED") = int(fusion::kUnnamed);
  m.attr("TENTATIVE_SEEN") = int(fusion::kTentativeSeen);
  m.attr("DOUBTED") = int(fusion::kDoubted);
  m.attr("OVERDUE") = int(fusion::kOverdue);
  m.attr("DUPLICATES") = int(fusion::kDuplicates);
  m.attr("FREE") = int(fusion::kFree);
}
