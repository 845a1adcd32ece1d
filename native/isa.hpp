// The interface of the kernels: the arrays that they share, and their entry points for every instruction set, of which one
// is chosen at load.
//
// GCC's target_clones would be shorter, but it lowers vector operations to the oldest set before it clones, and
// comparisons of lanes stay in pieces: the kernels ran at a third of the speed. A pragma around an include does not
// reach templates, which are instantiated at the end of a file, so each set has a source file of its own.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <type_traits>
#include <utility>

namespace fusion {

using Int = std::int64_t;
using Size = std::size_t;

// Lanes of double precision in the widest vector of any instruction set.
constexpr Size kLanesMax = 8;
// Joints that matching compares: as many as the widest vector of single precision holds.
constexpr Size kKeys = 16;
// Numbers per detection and per track that matching keeps.
constexpr Size kSeenKeys = 4 * kKeys, kBounds = 6, kStateKeys = 12 * kKeys, kReach = 10;
// Numbers per view that the update keeps: two rows of three, two distances and a precision, lanes of each.
constexpr Size kObservation = 9 * kLanesMax;
// Largest number of detections in one view.
constexpr Size kSide = 64;

// Everything that tracking reads and writes in one set of frames, bound once: no array is made, grown or looked up on the
// way. Shapes and meanings are in fusion/people/workspace.py.
struct Workspace {
  // The rig.
  const double *camera_from_world, *lenses;
  Size n_views;
  // Joints of the layout, padded to n_padded, a multiple of kLanesMax, and the limbs between them.
  Size n_joints, n_padded, n_limbs;
  const Int *keys, *limbs;
  const double *body_var, *acceleration, *floor_precision, *axis_precision, *height_precision, *trunk_weight;
  const double* doubt_var;
  // The set of frames.
  double* dt_s;
  unsigned char* has_frame;
  Int *start, *view_of;
  float *x, *y, *var,
      *seen;  // (n_detections, n_padded) each; single precision: half the memory, more digits than detectors have
  const double* appearance;  // (n_detections, appearance_dim) unit vectors or zero
  Size appearance_dim;
  // Tracks, one row each.
  Size capacity;
  double *mean, *cov, *heights_m, *limb_lengths_m, *track_appearance;
  Int *track_id, *seen_ns, *undoubted_ns, *multi_view_sets, *single_view_sets;
  unsigned char* confirmed;
  // Noise of the detector, as learnt.
  double *noise, *noise_total, *noise_count;
  // The assignment: (n_detections) and (n_rows, n_views).
  Int *track_of, *detection_of;
  // Scratch of one call.
  float *seen_keys, *bounds, *state_keys, *reach, *projected, *windows, *points, *fits;
  Size points_row;
  Int *pair_track, *pair_detection, *list, *matched, *shared, *shown, *near;
  double *pair_cost, *dense, *observations, *support, *blend, *turned;
  // Settings, with their reasons, in fusion/people/workspace.py.
  double keypoint_sd_px, score_min, joint_cost_cap, joints_min, prediction_var_max, match_gate, duplicate_gate,
      appearance_scale, degrees_of_freedom, velocity_decay_s, limb_sd_m, limb_own_var, joint_sd_max_m, noise_prior,
      noise_fade_s, noise_share, noise_min, noise_max, position_sd_max_m, coasting_max_s, tentative_max_s, doubt_max_s;
  Int detections_per_frame_max, noise_every;
};

// Settings of one update of tracks by their matched detections.
struct Measurement {
  double share;           // Weight of the body's priors in this set: they are the same information in every set.
  double learning;        // Share of this set's heights and limb lengths in the usual ones.
  Int n_steps, n_plain;   // Steps of the search, at least two; those at its start in which every view has full weight.
  Int tally;              // Noise is learnt from every noise_every-th track from here on; negative: from none.
  double *sums, *counts;  // (n_rows, n_views) capped squared residuals, and how many; may be null.
};

// Evidence that two detections of different cameras are of one person: log likelihood ratios against two people, see
// PairModel in fusion/_kernels/association.py.
struct PairModel {
  double joint_gain, joint_loss, joint_scale, place_gain, place_loss, place_scale, stature_sd, speed_m_s;
};

// Detections to compare: free (n) indices of them; dt_s of the views; x, y, var, seen (n_detections, n_padded);
// heights_m (n_padded, 2) usual height of each joint and its standard deviation. In single precision, with room for whole
// vectors: body_var, usual_m, and odd_per_m, by which a distance from the usual height counts as odd. Scratch:
// kPairNumbers of each detection, and pair_floats of single precision: their directions (n, 3, n_padded) and kPairColumns
// rows of a number each.
struct PairInput {
  const Int *free, *view_of;
  const double* dt_s;
  const float *x, *y, *var, *seen, *body_var, *usual_m, *odd_per_m;
  const double *camera_from_world, *heights_m;
  Size n, n_padded;
  double* scratch;
  float* directions;
};
constexpr Size kPairNumbers = 13, kPairColumns = 8;
// Numbers of single precision in whole vectors, the widest included.
constexpr Size wide(Size n) { return (n + 2 * kLanesMax - 1) / (2 * kLanesMax) * (2 * kLanesMax); }
constexpr Size pair_floats(Size n, Size n_padded) { return 3 * n * n_padded + kPairColumns * wide(n); }
// No match: higher than any cost. Two detections of one camera are never one person: lower than any sum of scores.
constexpr double kNever = 1e9, kImpossible = -1e9;

// Findings of `follow`, for the stage to branch on.
enum Found : Int {
  kUnsure = 1,   // A track is tentative, without an id, or vaguely placed.
  kUnnamed = 2,  // A track has no id.
  kTentativeSeen = 4,
  kDoubted = 8,      // At most one camera found a confirmed track.
  kOverdue = 16,     // A track was not seen, or was doubted, for too long.
  kDuplicates = 32,  // Two tracks are so near that they may be one person.
  kFree = 64,        // A detection belongs to no track.
};

// Entry points of one instruction set; arguments as where the functions are defined.
struct Kernels {
  void (*undistort)(const double*, const double*, Size, Size, double*, double*);
  void (*locate_linear)(const double*, const double*, const double*, Size, Size, bool, double*, double*, std::int8_t*);
  void (*locate)(const double*, const double*, const double*, Size, Size, bool, double, int, double*, double*, double*,
                 unsigned char*, std::int8_t*);
  void (*place_by_height)(const double*, const float*, const float*, const float*, const double*, Size, double,
                          double*);
  void (*pair_scores)(const PairInput&, const PairModel&, double*, float*);
  void (*pair_costs)(const PairInput&, const PairModel&, double, Size, double*);
  Int (*prepare)(const Workspace&, const float* const*);
  void (*predict)(const Workspace&, const Int*, Size, double);
  void (*costs)(const Workspace&, const Int*, Size, double, double*);
  void (*match)(const Workspace&, const Int*, Size);
  void (*measure)(const Workspace&, const Int*, const Int*, Size, const Measurement&);
  Int (*follow)(const Workspace&, const Int*, Size, Int, double, Measurement, double*, double*, double*, double*);
  void (*describe)(const Workspace&, const Int*, Size, double*, double*, double*, double*);
};

// Each is one source file, triangulation_*.cpp, that includes the kernels into a namespace of its own.
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

// The best instruction set of this machine; FUSION_ISA=avx2 or baseline asks for a lesser one, for tests to compare.
inline Isa best_isa() {
#if defined(__x86_64__) && defined(__GNUC__)
  __builtin_cpu_init();  // This runs before the constructors that would do it.
  const char* wanted = std::getenv("FUSION_ISA");
  const bool any = wanted == nullptr || *wanted == '\0';
  const bool has_avx512 =
      __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  if (has_avx512 && (any || std::strcmp(wanted, "avx512") == 0)) return {"avx512", avx512::kKernels};
  const bool has_avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  if (has_avx2 && (any || std::strcmp(wanted, "baseline") != 0)) return {"avx2", avx2::kKernels};
#endif
  return {"baseline", baseline::kKernels};
}

}  // namespace fusion
