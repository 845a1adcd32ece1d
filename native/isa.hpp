// The kernels of triangulation.hpp, compiled for every instruction set that is worth it, and the choice at load.
//
// GCC's target_clones would be shorter, but it takes vector operations apart for the oldest set before it clones, and
// comparisons of lanes stay in pieces: the kernels ran at a third of the speed. A pragma around an include does not
// reach templates, which are made at the end of a file, so each set has a file of its own.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>

namespace fusion {

struct Views {
  const double* camera_from_world;  // (n_views, 3, 4)
  const double* dt_s;               // (n_views) time of the camera's frame minus the instant of the state
  std::size_t n_views;
};

struct Detections {
  const double* x;  // (n_detections, n_padded) each
  const double* y;
  const double* var;
  const double* seen;
};

// What is known of a joint from the body it belongs to: it stays near the body's axis and near its usual height.
struct Anchors {
  const double* axis_precision;    // (n_padded) 1 / m^2, of either horizontal coordinate about the axis
  const double* height_precision;  // (n_padded) 1 / m^2
  double* heights_m;               // (capacity, n_padded) usual height of each person's joints, learnt while well seen
  double share;                    // Of that information which one set brings: it is the same opinion every time.
  double learning;                 // Share of a set's height in the usual height.
};

using Int = std::int64_t;
using Size = std::size_t;

// Entry points of one instruction set; arguments as in triangulation.hpp.
struct Kernels {
  Int (*prepare)(const float*, const Int*, const double*, Size, Size, Size, double, double, double*, double*, double*,
                 double*);
  void (*undistort)(const double*, const double*, Size, double*);
  void (*costs)(const double*, const double*, const Int*, const Detections&, const double*, const double*, const Int*,
                Size, Size, Size, const double*, double, double, double, double, double*);
  void (*triangulate)(const double*, const double*, Size, Size, double*, std::int8_t*);
  void (*refine)(const double*, const double*, const double*, Size, Size, int, double*, double*, double*);
  void (*predict)(double*, double*, const Int*, Size, Size, double, double, const double*);
  void (*update)(const Views&, const Detections&, const Int*, const Int*, Size, Size, const double*, const double*,
                 const double*, const Anchors&, double, int, int, double*, double*, double*, double*, double*);
  void (*hold_limbs)(double*, double*, const Int*, Size, Size, const Int*, Size, double*, const double*, double,
                     double, double);
  void (*describe)(const double*, const double*, const Int*, Size, Size, Size, const double*, double, double*, double*,
                   double*, double*);
};

// Each is one source file around triangulation.hpp, which opens a namespace of its own for it.
namespace baseline {
extern const Kernels kKernels;
}
namespace avx2 {
extern const Kernels kKernels;
}
namespace avx512 {
extern const Kernels kKernels;
}

struct Isa {
  const char* name;
  const Kernels& kernels;
};

// The best set that this machine has; FUSION_ISA=avx2 or baseline asks for a lesser one, so that tests can compare them.
inline Isa best_isa() {
#if defined(__x86_64__) && defined(__GNUC__)
  const char* wanted = std::getenv("FUSION_ISA");
  const bool any = wanted == nullptr || *wanted == '\0';
  const bool has_avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
                          __builtin_cpu_supports("avx512vl");
  if (has_avx512 && (any || std::strcmp(wanted, "avx512") == 0)) return {"avx512", avx512::kKernels};
  const bool has_avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  if (has_avx2 && (any || std::strcmp(wanted, "baseline") != 0)) return {"avx2", avx2::kKernels};
#endif
  return {"baseline", baseline::kKernels};
}

}  // namespace fusion
