// Small linear algebra of fixed size over lanes: eight independent problems walk side by side, one in each lane.
//
// The lane type is GCC's and Clang's vector extension, so one source reads as scalar algebra and becomes SSE2, AVX2 or
// AVX-512 as each is compiled for. Nothing here allocates, branches per lane or raises.
//
// Compiled once for each instruction set, into a namespace of its own: FUSION_ISA (see isa.hpp), hence without a guard.

#if defined(__GNUC__) && !defined(__clang__)
// Lanes are only ever passed to functions that are inlined, so no calling convention is involved.
#pragma GCC diagnostic ignored "-Wpsabi"
#pragma GCC diagnostic ignored "-Wattributes"
#endif
#define FUSION_INLINE inline __attribute__((always_inline))

namespace fusion {
namespace FUSION_ISA {

constexpr std::size_t kLanes = 8;

typedef double Lane __attribute__((vector_size(kLanes * sizeof(double))));
typedef long long LaneMask __attribute__((vector_size(kLanes * sizeof(long long))));

FUSION_INLINE void load(Lane& lane, const double* from) { std::memcpy(&lane, from, sizeof(Lane)); }
FUSION_INLINE void store(double* to, const Lane& lane) { std::memcpy(to, &lane, sizeof(Lane)); }
FUSION_INLINE void fill(Lane& lane, double value) { lane = Lane{} + value; }
FUSION_INLINE void at_least(Lane& lane, double low) { lane = lane > low ? lane : Lane{} + low; }

// The first `width` values of a row's last lanes; the others become NaN, as unseen values are.
FUSION_INLINE void load(Lane& lane, const double* from, std::size_t width) {
  if (width == kLanes) return load(lane, from);
  lane = Lane{} + std::nan("");
  for (std::size_t k = 0; k < width; ++k) lane[k] = from[k];
}
// One value from each of eight arrays, and back into the first `width` of them.
FUSION_INLINE void collect(Lane& lane, double* const (&from)[kLanes], std::size_t at) {
  lane = Lane{from[0][at], from[1][at], from[2][at], from[3][at], from[4][at], from[5][at], from[6][at], from[7][at]};
}
FUSION_INLINE void spread(const Lane& lane, double* const (&to)[kLanes], std::size_t at, std::size_t width) {
  for (std::size_t k = 0; k < width; ++k) to[k][at] = lane[k];
}
// Lane k of row i becomes lane i of row k.
FUSION_INLINE void transpose(Lane (&rows)[kLanes]) {
#if defined(__clang__)
  double all[kLanes][kLanes];
  for (std::size_t i = 0; i < kLanes; ++i) store(all[i], rows[i]);
  for (std::size_t i = 0; i < kLanes; ++i)
    for (std::size_t k = 0; k < kLanes; ++k) rows[i][k] = all[k][i];
#else
  // Swap neighbouring lanes of neighbouring rows, then pairs, then halves.
  constexpr LaneMask even[3] = {{0, 8, 2, 10, 4, 12, 6, 14}, {0, 1, 8, 9, 4, 5, 12, 13}, {0, 1, 2, 3, 8, 9, 10, 11}};
  constexpr LaneMask odd[3] = {{1, 9, 3, 11, 5, 13, 7, 15}, {2, 3, 10, 11, 6, 7, 14, 15}, {4, 5, 6, 7, 12, 13, 14, 15}};
#pragma GCC unroll 3
  for (std::size_t step = 0; step < 3; ++step)
#pragma GCC unroll 8
    for (std::size_t i = 0; i < kLanes; ++i) {
      const std::size_t other = i | (std::size_t(1) << step);
      if (other == i) continue;
      const Lane a = rows[i], b = rows[other];
      rows[i] = __builtin_shuffle(a, b, even[step]);
      rows[other] = __builtin_shuffle(a, b, odd[step]);
    }
#endif
}
FUSION_INLINE Lane root(Lane lane) {
  double each[kLanes];
  store(each, lane);
  for (double& value : each) value = std::sqrt(value);
  load(lane, each);
  return lane;
}
FUSION_INLINE double sum(const Lane& lane) {
  return ((lane[0] + lane[1]) + (lane[2] + lane[3])) + ((lane[4] + lane[5]) + (lane[6] + lane[7]));
}
FUSION_INLINE double highest(const Lane& lane) {
  double most = lane[0];
#pragma GCC unroll 8
  for (std::size_t k = 1; k < kLanes; ++k) most = lane[k] > most ? lane[k] : most;
  return most;
}
// Sixteen lanes in single precision, which is enough for matching, not for positions.
constexpr std::size_t kLanesF = 16;

typedef float LaneF __attribute__((vector_size(kLanesF * sizeof(float))));
typedef int LaneFMask __attribute__((vector_size(kLanesF * sizeof(int))));

// The type of a comparison of lanes.
FUSION_INLINE LaneMask mask_of(const Lane&) { return LaneMask{}; }
FUSION_INLINE LaneFMask mask_of(const LaneF&) { return LaneFMask{}; }

FUSION_INLINE void load(LaneF& lane, const float* from) { std::memcpy(&lane, from, sizeof(LaneF)); }
FUSION_INLINE void store(float* to, const LaneF& lane) { std::memcpy(to, &lane, sizeof(LaneF)); }
FUSION_INLINE void store(int* to, const LaneFMask& lane) { std::memcpy(to, &lane, sizeof(LaneFMask)); }
// Fold by halves, each a narrower vector: sixteen scalar additions would wait for each other.
template <class Fold>
FUSION_INLINE float folded(const LaneF& lane, Fold fold) {
  typedef float Half __attribute__((vector_size(8 * sizeof(float))));
  typedef float Quarter __attribute__((vector_size(4 * sizeof(float))));
  Half halves[2];
  std::memcpy(halves, &lane, sizeof(lane));
  const Half eight = fold(halves[0], halves[1]);
  Quarter quarters[2];
  std::memcpy(quarters, &eight, sizeof(eight));
  const Quarter four = fold(quarters[0], quarters[1]);
  return fold(fold(four[0], four[2]), fold(four[1], four[3]));
}
FUSION_INLINE float sum(const LaneF& lane) {
  return folded(lane, [](const auto& a, const auto& b) { return a + b; });
}
FUSION_INLINE float highest(const LaneF& lane) {
  return folded(lane, [](const auto& a, const auto& b) { return a > b ? a : b; });
}
FUSION_INLINE float lowest(const LaneF& lane) { return -highest(-lane); }
FUSION_INLINE bool any(const LaneFMask& mask) {
  typedef long long Half __attribute__((vector_size(4 * sizeof(long long))));
  typedef long long Quarter __attribute__((vector_size(2 * sizeof(long long))));
  Half halves[2];
  std::memcpy(halves, &mask, sizeof(mask));
  const Half four = halves[0] | halves[1];
  Quarter quarters[2];
  std::memcpy(quarters, &four, sizeof(four));
  const Quarter two = quarters[0] | quarters[1];
  return (two[0] | two[1]) != 0;
}
// Any sixteen values of two vectors, by their places in the two together.
FUSION_INLINE LaneF picked(const LaneF& first, const LaneF& second, const LaneFMask& places) {
#if defined(__clang__)
  float both[2 * kLanesF];
  store(both, first);
  store(both + kLanesF, second);
  LaneF out;
  for (std::size_t k = 0; k < kLanesF; ++k) out[k] = both[places[k]];
  return out;
#else
  return __builtin_shuffle(first, second, places);
#endif
}
// Eight numbers of single precision.
FUSION_INLINE void load(Lane& lane, const float* from) {
  typedef float Half __attribute__((vector_size(8 * sizeof(float))));
  Half half;
  std::memcpy(&half, from, sizeof(half));
  lane = __builtin_convertvector(half, Lane);
}
FUSION_INLINE void store_half(float* to, const LaneF& lane) { std::memcpy(to, &lane, sizeof(LaneF) / 2); }
// Double to single precision, half a vector at a time.
FUSION_INLINE LaneF narrow(const Lane& low, const Lane& high) {
  typedef float Half __attribute__((vector_size(8 * sizeof(float))));
  const Half halves[2] = {__builtin_convertvector(low, Half), __builtin_convertvector(high, Half)};
  LaneF lane;
  std::memcpy(&lane, halves, sizeof(lane));
  return lane;
}
FUSION_INLINE bool any(const LaneMask& mask) {
  return ((mask[0] | mask[1]) | (mask[2] | mask[3])) | ((mask[4] | mask[5]) | (mask[6] | mask[7]));
}

// Symmetric n x n matrix, one in each lane; the lower triangle is kept row by row.
template <int n>
struct Symmetric {
  static constexpr int kSize = n * (n + 1) / 2;
  Lane v[kSize];

  static constexpr int at(int row, int column) {
    return row >= column ? row * (row + 1) / 2 + column : column * (column + 1) / 2 + row;
  }
  FUSION_INLINE Lane& operator()(int row, int column) { return v[at(row, column)]; }
  FUSION_INLINE const Lane& operator()(int row, int column) const { return v[at(row, column)]; }
};

// Inverse of a positive definite 3 x 3 matrix by cofactors: one division instead of a chain of three.
FUSION_INLINE void invert(const Symmetric<3>& s, Symmetric<3>& out) {
  const Lane a = s(1, 1) * s(2, 2) - s(2, 1) * s(2, 1);
  const Lane b = s(2, 0) * s(2, 1) - s(1, 0) * s(2, 2);
  const Lane c = s(1, 0) * s(2, 1) - s(2, 0) * s(1, 1);
  Lane det = s(0, 0) * a + s(1, 0) * b + s(2, 0) * c;
  at_least(det, 1e-300);
  const Lane inverse = 1.0 / det;
  out(0, 0) = a * inverse;
  out(1, 0) = b * inverse;
  out(2, 0) = c * inverse;
  out(1, 1) = (s(0, 0) * s(2, 2) - s(2, 0) * s(2, 0)) * inverse;
  out(2, 1) = (s(1, 0) * s(2, 0) - s(0, 0) * s(2, 1)) * inverse;
  out(2, 2) = (s(0, 0) * s(1, 1) - s(1, 0) * s(1, 0)) * inverse;
}

// L D L^T of a positive definite matrix: L has a unit diagonal; 1 / D is kept, since only that is needed.
template <int n>
struct Ldlt {
  Symmetric<n> lower;  // Strictly below the diagonal: L. On it: 1 / D.

  // Pivots are kept above pivot_min: a direction that no view measured gets a huge variance instead of a negative one.
  FUSION_INLINE void factor(const Symmetric<n>& matrix, double pivot_min) {
#pragma GCC unroll 8
    for (int j = 0; j < n; ++j) {
      Lane pivot = matrix(j, j);
      Lane scaled[n];
#pragma GCC unroll 8
      for (int k = 0; k < j; ++k) {
        scaled[k] = lower(j, k);  // Still L D, divided below.
        lower(j, k) = scaled[k] * lower(k, k);
        pivot -= scaled[k] * lower(j, k);
      }
      at_least(pivot, pivot_min);
      lower(j, j) = 1.0 / pivot;
#pragma GCC unroll 8
      for (int i = j + 1; i < n; ++i) {
        Lane sum = matrix(i, j);
#pragma GCC unroll 8
        for (int k = 0; k < j; ++k) sum -= lower(i, k) * lower(j, k);
        lower(i, j) = sum;
      }
    }
  }

  FUSION_INLINE void solve(Lane (&x)[n]) const {
#pragma GCC unroll 8
    for (int i = 1; i < n; ++i)
#pragma GCC unroll 8
      for (int k = 0; k < i; ++k) x[i] -= lower(i, k) * x[k];
#pragma GCC unroll 8
    for (int i = 0; i < n; ++i) x[i] *= lower(i, i);
#pragma GCC unroll 8
    for (int i = n - 2; i >= 0; --i)
#pragma GCC unroll 8
      for (int k = i + 1; k < n; ++k) x[i] -= lower(k, i) * x[k];
  }

  FUSION_INLINE void inverse(Symmetric<n>& out) const {
    // Invert L in place of a copy, then L^-T D^-1 L^-1.
    Symmetric<n> inv;
#pragma GCC unroll 8
    for (int j = 0; j < n; ++j) {
      fill(inv(j, j), 1.0);
#pragma GCC unroll 8
      for (int i = j + 1; i < n; ++i) {
        Lane sum = -lower(i, j);
#pragma GCC unroll 8
        for (int k = j + 1; k < i; ++k) sum -= lower(i, k) * inv(k, j);
        inv(i, j) = sum;
      }
    }
#pragma GCC unroll 8
    for (int i = 0; i < n; ++i)
#pragma GCC unroll 8
      for (int j = 0; j <= i; ++j) {
        Lane sum{};
#pragma GCC unroll 8
        for (int k = i; k < n; ++k) sum += inv(k, i) * lower(k, k) * inv(k, j);
        out(i, j) = sum;
      }
  }
};

}  // namespace FUSION_ISA
}  // namespace fusion
