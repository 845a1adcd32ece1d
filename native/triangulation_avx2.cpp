// The kernels for machines with AVX2; see isa.hpp.
#include "isa.hpp"

// Included after every other header, since inline functions of the standard library must run on any machine.
#if defined(__x86_64__) && defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma"))), apply_to = function)
#elif defined(__x86_64__) && defined(__GNUC__)
#pragma GCC target("avx2,fma")
#endif

#define FUSION_ISA avx2
#define FUSION_VECTOR_BYTES 32
#include "triangulation.hpp"
#include "detections.hpp"
#include "grouping.hpp"
#include "matching.hpp"
#include "joints.hpp"
#include "tracking.hpp"

#if defined(__x86_64__) && defined(__clang__)
#pragma clang attribute pop
#endif
