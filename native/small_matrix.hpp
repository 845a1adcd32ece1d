// Small fixed-size linear algebra over lanes: eight independent problems walk side by side, one in each lane.
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

// The first few of a row's last lanes; the others become NaN, which is what nobody saw.
FUSION_INLINE void load(Lane& lane, const double* from, std::size_t width) {
  if (width == kLanes) return load(lane, from);
  lane = Lane{} + std::nan("");
  for (std::size_t k = 0; k < width; ++k) lane[k] = from[k];
}
// One value of each of eight arrays, and back into the first few of them.
FUSION_INLINE void collect(Lane& lane, double* const (&from)[kLanes], std::size_t at) {
  lane = Lane{from[0][at], from[1][at], from[2][at], from[3][at], from[4][at], from[5][at], from[6][at], from[7][at]};
}
FUSION_INLINE void spread(const Lane& lane, double* const (&to)[kLanes], std::size_t at, std::size_t width) {
  for (std::size_t k = 0; k < width; ++k) to[k][at] = lane[k];
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

// L D L^T of a positive definite matrix: L has a unit diagonal; 1 / D is kept, since only that is needed.
template <int n>
struct Ldlt {
  Symmetric<n> lower;  // Strictly below the diagonal: L. On it: 1 / D.

  // Pivots are kept above pivot_min: a direction that nobody measured gets a huge variance instead of a negative one.
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
