// The kernels for any machine; see isa.hpp.
#include "isa.hpp"

#define FUSION_ISA baseline
#include "triangulation.hpp"
#include "detections.hpp"
#include "matching.hpp"
#include "joints.hpp"
#include "tracking.hpp"
