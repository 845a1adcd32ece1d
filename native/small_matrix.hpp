// Small linear algebra of fixed size over lanes: as many independent problems as a vector of the machine holds numbers walk
// side by side, one in each lane.
//
// The lane types are GCC's and Clang's vector extension, as wide as the instruction set's registers: 16 bytes (SSE2, NEON),
// 32 (AVX2) or 64 (AVX-512). GCC takes vectors that the machine cannot hold apart into scalars. So one source reads as
// scalar algebra and becomes packed instructions of each set. Nothing here allocates, branches per lane or raises.
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

// Vectors of n numbers.
template <class T, Size n>
struct VectorOf {
  typedef T type __attribute__((vector_size(n * sizeof(T))));
};
template <class T, Size n>
using Vector = typename VectorOf<T, n>::type;

// Lanes in double precision; twice as many in single precision, which is enough for matching, not for positions.
constexpr Size kLanes = FUSION_VECTOR_BYTES / sizeof(double), kLanesF = 2 * kLanes;
static_assert(kLanes <= kLanesMax, "scratch is made for the widest lanes");
using Lane = Vector<double, kLanes>;
using LaneMask = Vector<std::int64_t, kLanes>;
using LaneF = Vector<float, kLanesF>;
using LaneFMask = Vector<std::int32_t, kLanesF>;
// As many numbers of single precision as there are lanes of double.
using HalfF = Vector<float, kLanes>;

// The same numbers anywhere in memory. A vector is moved by one instruction through this type; as memcpy GCC moves it in
// halves of 16 bytes, and what reads the whole then waits for both.
template <class V>
struct Anywhere {
  using Number = std::remove_reference_t<decltype(V{}[0])>;
  typedef Number type __attribute__((vector_size(sizeof(V)), aligned(sizeof(Number)), may_alias));
};
template <class V, class T>
FUSION_INLINE V read(const T* from) {
  return *reinterpret_cast<const typename Anywhere<V>::type*>(from);
}
template <class V, class T>
FUSION_INLINE void write(T* to, const V& lane) {
  *reinterpret_cast<typename Anywhere<V>::type*>(to) = lane;
}

// The type of a comparison of lanes.
FUSION_INLINE LaneMask mask_of(const Lane&) { return LaneMask{}; }
FUSION_INLINE LaneFMask mask_of(const LaneF&) { return LaneFMask{}; }

FUSION_INLINE void load(Lane& lane, const double* from) { lane = read<Lane>(from); }
FUSION_INLINE void load(LaneF& lane, const float* from) { lane = read<LaneF>(from); }
FUSION_INLINE void load(Lane& lane, const float* from) { lane = __builtin_convertvector(read<HalfF>(from), Lane); }
FUSION_INLINE void store(double* to, const Lane& lane) { write(to, lane); }
FUSION_INLINE void store(float* to, const LaneF& lane) { write(to, lane); }
FUSION_INLINE void store(std::int32_t* to, const LaneFMask& lane) { write(to, lane); }
FUSION_INLINE void store_half(float* to, const LaneF& lane) { std::memcpy(to, &lane, sizeof(HalfF)); }
FUSION_INLINE void fill(Lane& lane, double value) { lane = Lane{} + value; }
FUSION_INLINE void at_least(Lane& lane, double low) { lane = lane > low ? lane : Lane{} + low; }

template <class L>
FUSION_INLINE L lesser(const L& a, const L& b) {
  return a < b ? a : b;
}
template <class L>
FUSION_INLINE L greater(const L& a, const L& b) {
  return a > b ? a : b;
}

// Double to single precision, half a vector at a time.
FUSION_INLINE LaneF narrow(const Lane& low, const Lane& high) {
  const HalfF halves[2] = {__builtin_convertvector(low, HalfF), __builtin_convertvector(high, HalfF)};
  LaneF lane;
  std::memcpy(&lane, halves, sizeof(lane));
  return lane;
}

// One lane each from value(0), value(1), ...
template <class V, class Value, Size... k>
FUSION_INLINE V lanes_of(Value value, std::index_sequence<k...>) {
  return V{value(k)...};
}
// One value from each of several arrays, and back into the first `width` of them.
FUSION_INLINE void collect(Lane& lane, double* const (&from)[kLanes], Size at) {
  lane = lanes_of<Lane>([&](Size k) { return from[k][at]; }, std::make_index_sequence<kLanes>());
}
FUSION_INLINE void spread(const Lane& lane, double* const (&to)[kLanes], Size at, Size width) {
  for (Size k = 0; k < width; ++k) to[k][at] = lane[k];
}

// Lanes of two vectors by their places in the two together: Places::at(k) for lane k, known when compiled.
template <class Places, class V, Size... k>
FUSION_INLINE V shuffled(const V& first, const V& second, std::index_sequence<k...>) {
#if defined(__clang__)
  return __builtin_shufflevector(first, second, Places::at(k)...);
#else
  using Place = std::conditional_t<sizeof(first[0]) == 4, std::int32_t, std::int64_t>;
  return __builtin_shuffle(first, second, Vector<Place, sizeof...(k)>{Place(Places::at(k))...});
#endif
}
template <class Places, class V>
FUSION_INLINE V shuffled(const V& first, const V& second) {
  return shuffled<Places>(first, second, std::make_index_sequence<sizeof(V) / sizeof(first[0])>());
}

// Blocks of `step` lanes swapped between two rows: what stays in the first row, and in the second.
template <Size step>
struct FirstOfBlocks {
  static constexpr Size at(Size k) { return k & step ? kLanes + k - step : k; }
};
template <Size step>
struct SecondOfBlocks {
  static constexpr Size at(Size k) { return k & step ? kLanes + k : k + step; }
};
// Lane k of row i becomes lane i of row k: swap neighbouring lanes of neighbouring rows, then pairs, then halves.
template <Size step = 1>
FUSION_INLINE void transpose(Lane (&rows)[kLanes]) {
  if constexpr (step < kLanes) {
#pragma GCC unroll 8
    for (Size i = 0; i < kLanes; ++i) {
      if (i & step) continue;
      const Lane a = rows[i], b = rows[i | step];
      rows[i] = shuffled<FirstOfBlocks<step>>(a, b);
      rows[i | step] = shuffled<SecondOfBlocks<step>>(a, b);
    }
    transpose<2 * step>(rows);
  }
}
FUSION_INLINE Lane root(Lane lane) {
  double each[kLanes];
  store(each, lane);
  for (double& value : each) value = std::sqrt(value);
  load(lane, each);
  return lane;
}
FUSION_INLINE LaneF root(LaneF lane) {
  float each[kLanesF];
  store(each, lane);
  for (float& value : each) value = std::sqrt(value);
  load(lane, each);
  return lane;
}

// Fold neighbours, then pairs of neighbours, and so on.
template <Size first, Size n, class Fold>
FUSION_INLINE double folded(const Lane& lane, Fold fold) {
  if constexpr (n == 1) return lane[first];
  else return fold(folded<first, n / 2>(lane, fold), folded<first + n / 2, n / 2>(lane, fold));
}
FUSION_INLINE double sum(const Lane& lane) {
  return folded<0, kLanes>(lane, [](double a, double b) { return a + b; });
}
FUSION_INLINE double highest(const Lane& lane) {
  return folded<0, kLanes>(lane, [](double a, double b) { return a > b ? a : b; });
}
// Fold by halves, each a narrower vector: sixteen scalar additions would wait for each other.
template <Size n, class Fold>
FUSION_INLINE float folded(const Vector<float, n>& lane, Fold fold) {
  if constexpr (n == 4) {
    return fold(fold(lane[0], lane[2]), fold(lane[1], lane[3]));
  } else {
    Vector<float, n / 2> halves[2];
    std::memcpy(halves, &lane, sizeof(lane));
    return folded<n / 2>(fold(halves[0], halves[1]), fold);
  }
}
FUSION_INLINE float sum(const LaneF& lane) {
  return folded<kLanesF>(lane, [](const auto& a, const auto& b) { return a + b; });
}
FUSION_INLINE float highest(const LaneF& lane) {
  return folded<kLanesF>(lane, [](const auto& a, const auto& b) { return a > b ? a : b; });
}
FUSION_INLINE float lowest(const LaneF& lane) { return -highest(-lane); }

// Whether any lane of a comparison holds, folded by halves as well.
template <Size n>
FUSION_INLINE bool any_of(const Vector<std::int64_t, n>& mask) {
  if constexpr (n == 2) {
    return (mask[0] | mask[1]) != 0;
  } else {
    Vector<std::int64_t, n / 2> halves[2];
    std::memcpy(halves, &mask, sizeof(mask));
    return any_of<n / 2>(halves[0] | halves[1]);
  }
}
FUSION_INLINE bool any(const LaneMask& mask) { return any_of<kLanes>(mask); }
FUSION_INLINE bool any(const LaneFMask& mask) {
  LaneMask together;
  std::memcpy(&together, &mask, sizeof(mask));
  return any(together);
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
