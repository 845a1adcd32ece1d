// The kernels of triangulation.hpp and tracking.hpp, compiled for every instruction set that is worth it, and the choice
// at load.
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

using Int = std::int64_t;
using Size = std::size_t;

// Joints that matching compares: as many as one vector of single precision holds.
constexpr Size kKeys = 16;
// What is kept of a detection and of a person's joints for matching.
constexpr Size kSeenKeys = 4 * kKeys, kBounds = 6, kStateKeys = 12 * kKeys, kReach = 10;
// What the update keeps of one view: two rows of three, two distances, a precision; eight lanes each.
constexpr Size kSight = 9 * 8;
// Detections of one view are at most so many.
constexpr Size kSide = 64;

// Everything that following people through one set of frames reads and writes, bound once: no array is made, grown or
// looked up while people are followed. Shapes and meanings are in fusion/_kernels/triangulation.pyi.
struct Workspace {
  // The rig.
  const double *camera_from_world, *lenses;
  Size n_views;
  // Joints of the layout, padded to n_padded lanes, and the limbs between them.
  Size n_joints, n_padded, n_limbs;
  const Int *keys, *limbs;
  const double *body_var, *acceleration, *floor_precision, *axis_precision, *height_precision, *share;
  // The set of frames.
  double* dt_s;
  unsigned char* has_frame;
  Int *start, *view_of;
  float *x, *y, *var, *seen;  // (n_detections, n_padded) each: half the memory, and more digits than detectors have
  const double* appearance;    // (n_detections, appearance_dim) unit vectors or zero
  Size appearance_dim;
  // People, one row each.
  Size capacity;
  double *mean, *cov, *heights_m, *limb_lengths_m, *looks;
  Int *track_id, *seen_ns, *sure_ns, *sets_seen, *sets_alone;
  unsigned char* confirmed;
  // What is learnt of the detector.
  double *noise, *noise_total, *noise_count;
  // Who is who: (n_detections) and (n_rows, n_views).
  Int *track_of, *detection_of;
  // Scratch of one call.
  float *seen_keys, *bounds, *state_keys, *reach, *projected, *windows, *points, *fits;
  Size points_row;
  Int *pair_track, *pair_detection, *list, *matched, *shared, *shown, *near;
  double *pair_cost, *dense, *sights, *support, *blend, *turned;
  // Tunables, with their reasons, in fusion/association.py and fusion/tracks.py.
  double keypoint_sd_px, score_min, joint_cost_cap, joints_min, prediction_var_max, match_gate, double_gate,
      appearance_scale, freedom, fade_s, limb_sd_m, limb_own_var, joint_sd_max_m, noise_prior, noise_fade_s,
      noise_share, noise_min, noise_max, position_sd_max_m, coasting_max_s, tentative_max_s, doubt_max_s;
  Int detections_per_frame_max, noise_every;
};

// One update of people from what they were matched to.
struct Measurement {
  double share;     // Of what is known of a body that one set brings: it is the same opinion every time.
  double learning;  // Share of a set's height and limb lengths in the usual ones.
  Int n_steps, n_plain;
  Int tally;         // Whose noise is tallied: every noise_every-th person from here; negative: nobody's.
  double *sums, *counts;  // (n_rows, n_views) capped squared residuals and how many; may be null.
};

// What `follow` found, for the stage to branch on.
enum Found : Int {
  kUnsure = 1,       // Somebody is tentative, unnamed or vaguely placed.
  kUnnamed = 2,
  kTentativeSeen = 4,
  kDoubted = 8,      // Somebody confirmed was found by one camera at most.
  kOverdue = 16,
  kDuplicates = 32,  // Two stand so near that they may be one.
  kFree = 64,        // A detection is nobody's.
};

// Entry points of one instruction set; arguments as in triangulation.hpp and tracking.hpp.
struct Kernels {
  void (*undistort)(const double*, const double*, Size, double*);
  void (*triangulate)(const double*, const double*, Size, Size, double*, std::int8_t*);
  void (*refine)(const double*, const double*, const double*, Size, Size, int, double*, double*, double*);
  Int (*prepare)(const Workspace&, const float* const*);
  void (*predict)(const Workspace&, const Int*, Size, double);
  void (*costs)(const Workspace&, const Int*, Size, double, double*);
  void (*match)(const Workspace&, const Int*, Size);
  void (*measure)(const Workspace&, const Int*, const Int*, Size, const Measurement&);
  Int (*follow)(const Workspace&, const Int*, Size, Int, double, Measurement, double*, double*, double*, double*);
  void (*describe)(const Workspace&, const Int*, Size, double*, double*, double*, double*);
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
