// The kernels for any machine; see isa.hpp.
#include "isa.hpp"

#define FUSION_ISA baseline
#define FUSION_VECTOR_BYTES 16
#include "triangulation.hpp"
#include "detections.hpp"
#include "grouping.hpp"
#include "matching.hpp"
#include "joints.hpp"
#include "tracking.hpp"
