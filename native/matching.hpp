// Matching: the detections of every camera assigned to the tracks predicted for its instant. Plain C++17 over
// detections.hpp; loops over the arrays of a Workspace (isa.hpp). Nothing is allocated, nothing raised.
//
// Compiled once for each instruction set, into a namespace of its own: FUSION_ISA (see isa.hpp), hence without a guard.

namespace fusion {
namespace FUSION_ISA {

// ---- where predicted tracks may appear -------------------------------------------------------------------------------

// Depth below which a point is not in front of a camera, metres.
constexpr float kNearest = 0.05f;

// Whole vectors of tracks.
FUSION_INLINE Size padded_tracks(Size n_rows) { return (n_rows + kLanesF - 1) / kLanesF * kLanesF; }

// Bounds of every track's keys, in arrays over tracks (ws.reach): centre and half size of a box in the world, the largest
// speed of any key, and the largest variance. With them each track's key states: place, velocity, covariance of the
// place (ws.state_keys).
inline void bound_tracks(const Workspace& ws, const Int* rows, Size n_rows) {
  const Size width = padded_tracks(n_rows);
  const Keys keys(ws);
  // Joints that no detection of this set shows are left out.
  LaneF seen_by[kKeyGroups]{};
  for (Int d = 0; d < ws.start[ws.n_views]; ++d)
    for (Size g = 0; g < kKeyGroups; ++g) {
      LaneF seen;
      load(seen, ws.seen_keys + kSeenKeys * d + 3 * kKeys + g * kLanesF);
      seen_by[g] += seen;
    }
  const LaneF far = LaneF{} + 1e30f, none{};
  for (Size r = 0; r < n_rows; ++r) {
    const double* m = ws.mean + rows[r] * kState * ws.n_padded;
    const double* c = ws.cov + rows[r] * kStateCov * ws.n_padded;
    float* state = ws.state_keys + kStateKeys * r;
    for (int i = 0; i < kState; ++i) keys.pick(m + i * ws.n_padded, ws.n_padded, state + i * kKeys);
    for (int i = 0; i < 6; ++i) keys.pick(c + i * ws.n_padded, ws.n_padded, state + (kState + i) * kKeys);
    LaneF low[3], top[3], fastest[3], vaguest = none;
    for (int i = 0; i < 3; ++i) {
      low[i] = far;
      top[i] = -far;
      fastest[i] = none;
    }
    for (Size g = 0; g < kKeyGroups; ++g) {
      const LaneFMask used = seen_by[g] != none;
      for (int i = 0; i < 3; ++i) {
        LaneF place, speed;
        load(place, state + i * kKeys + g * kLanesF);
        load(speed, state + (3 + i) * kKeys + g * kLanesF);
        low[i] = lesser(low[i], used ? place : far);
        top[i] = greater(top[i], used ? place : -far);
        fastest[i] = greater(fastest[i], used ? (speed < 0.0f ? -speed : speed) : none);
      }
      LaneF xx, yy, zz;
      load(xx, state + 6 * kKeys + g * kLanesF);
      load(yy, state + 8 * kKeys + g * kLanesF);
      load(zz, state + 11 * kKeys + g * kLanesF);
      vaguest = greater(vaguest, used ? xx + yy + zz : none);
    }
    for (int i = 0; i < 3; ++i) {
      const float least = lowest(low[i]), most = highest(top[i]);
      ws.reach[i * width + r] = 0.5f * (least + most);
      ws.reach[(3 + i) * width + r] = 0.5f * (most - least);
      ws.reach[(6 + i) * width + r] = highest(fastest[i]);
    }
    ws.reach[9 * width + r] = highest(vaguest);
  }
  for (Size i = 0; i < kReach; ++i)
    for (Size r = n_rows; r < width; ++r) ws.reach[i * width + r] = 0.0f;
}

// Windows of a view's image (ws.windows): rows of left, right, top and bottom edges within which a track's keys must lie,
// the reach of the capped distance included, a vector of tracks at a time. A track behind the camera has an empty window; one
// that is partly behind the camera or very near to it may appear anywhere. NaN compares false and so excludes nothing.
inline void project_windows(const Workspace& ws, Size view, Size n_rows, float body_var) {
  const Size width = padded_tracks(n_rows);
  const double* camera = ws.camera_from_world + 12 * view;
  float p[12];
  for (int i = 0; i < 12; ++i) p[i] = float(camera[i]);
  const float dt = std::fabs(float(ws.dt_s[view])), cap = float(ws.joint_cost_cap);
  const LaneF var_max = LaneF{} + float(ws.prediction_var_max), infinite = LaneF{} + 1e30f;
  const auto absolute = [](const LaneF& a) { return a < 0.0f ? -a : a; };
  for (Size first = 0; first < width; first += kLanesF) {
    LaneF middle[3], half[3], var;
    for (int i = 0; i < 3; ++i) {
      LaneF speed;
      load(middle[i], ws.reach + i * width + first);
      load(half[i], ws.reach + (3 + i) * width + first);
      load(speed, ws.reach + (6 + i) * width + first);
      half[i] += dt * speed;
    }
    load(var, ws.reach + 9 * width + first);
    const LaneF depth = p[8] * middle[0] + p[9] * middle[1] + p[10] * middle[2] + p[11];
    const LaneF deep = std::fabs(p[8]) * half[0] + std::fabs(p[9]) * half[1] + std::fabs(p[10]) * half[2];
    const LaneF near = depth - deep;
    const LaneF inverse = 1.0f / depth, inverse_near = 1.0f / near;
    LaneF centre[2], spread[2];
    for (int row = 0; row < 2; ++row) {
      const float* q = p + 4 * row;
      centre[row] = (q[0] * middle[0] + q[1] * middle[1] + q[2] * middle[2] + q[3]) * inverse;
      spread[row] = LaneF{};
      for (int i = 0; i < 3; ++i) spread[row] += absolute(q[i] - centre[row] * p[8 + i]) * half[i];
      spread[row] *= inverse_near;
    }
    const LaneF u = absolute(centre[0]) + spread[0], v = absolute(centre[1]) + spread[1];
    LaneF vague = var * (1.0f + 0.5f * (u * u + v * v));
    vague = cap * (body_var + (vague < var_max ? vague : var_max));
    const LaneF blur = root(vague) * inverse_near;
    const LaneFMask behind = depth + deep < kNearest, anywhere = ~behind & ~(near > 0.2f);
    for (int side = 0; side < 2; ++side) {
      const LaneF low = centre[side] - spread[side] - blur, high = centre[side] + spread[side] + blur;
      store(ws.windows + (2 * side) * width + first, behind ? infinite : anywhere ? -infinite : low);
      store(ws.windows + (2 * side + 1) * width + first, behind ? -infinite : anywhere ? infinite : high);
    }
  }
}

// Which of a vector of windows overlap a bound. A window of NaN overlaps everything.
FUSION_INLINE LaneFMask overlapping(const float* windows, Size width, const float* bound) {
  LaneF left, right, top, bottom;
  load(left, windows);
  load(right, windows + width);
  load(top, windows + 2 * width);
  load(bottom, windows + 3 * width);
  return ~((right < bound[kLeft]) | (left > bound[kRight]) | (bottom < bound[kTop]) | (top > bound[kBottom]));
}

// Settings of the cost, the same for all views.
struct CostModel {
  float body[kKeys], used[kKeys];  // Variance of each key at the body, m^2; 1 for the layout's keys.
  float body_max, cap, var_max, gate;

  FUSION_INLINE CostModel(const Workspace& ws, double gate_value)
      : body_max(0.0f), cap(float(ws.joint_cost_cap)), var_max(float(ws.prediction_var_max)), gate(float(gate_value)) {
    for (Size k = 0; k < kKeys; ++k) {
      used[k] = ws.keys[k] < 0 ? 0.0f : 1.0f;
      body[k] = ws.keys[k] < 0 ? 0.0f : float(ws.body_var[ws.keys[k]]);
      body_max = body[k] > body_max ? body[k] : body_max;
    }
  }
};

// A track's keys projected into a view: image coordinates u and v, the variance of the body alone, and the variance of
// body and prediction together, written to `out`. Returns false where the track is behind the camera.
FUSION_INLINE bool project(const float* state, const double* camera, double dt_s, const CostModel& model, float* out) {
  float p[12];
  for (int i = 0; i < 12; ++i) p[i] = float(camera[i]);
  const float dt = float(dt_s);
  LaneF ahead{};
#pragma GCC unroll 1
  for (Size first = 0; first < kKeys; first += kLanesF) {
    LaneF s[kState], e[6], body, used;
#pragma GCC unroll 6
    for (int i = 0; i < kState; ++i) load(s[i], state + i * kKeys + first);
#pragma GCC unroll 6
    for (int i = 0; i < 6; ++i) load(e[i], state + (kState + i) * kKeys + first);
    load(body, model.body + first);
    load(used, model.used + first);
    const LaneF qx = s[0] + dt * s[3], qy = s[1] + dt * s[4], qz = s[2] + dt * s[5];
    LaneF depth = p[8] * qx + p[9] * qy + p[10] * qz + p[11];
    ahead += used > 0.0f ? depth - kNearest : LaneF{};
    depth = depth > kNearest ? depth : LaneF{} + kNearest;
    const LaneF inverse = 1.0f / depth;
    const LaneF u = (p[0] * qx + p[1] * qy + p[2] * qz + p[3]) * inverse;
    const LaneF v = (p[4] * qx + p[5] * qy + p[6] * qz + p[7]) * inverse;
    // Mean variance of the two image coordinates: J P J^T with the rows J of the projection's Jacobian.
    LaneF across{};
#pragma GCC unroll 2
    for (int i = 0; i < 2; ++i) {
      const LaneF w = i == 0 ? u : v;
      const LaneF jx = p[4 * i] - w * p[8], jy = p[4 * i + 1] - w * p[9], jz = p[4 * i + 2] - w * p[10];
      across += jx * (e[0] * jx + 2.0f * (e[1] * jy + e[3] * jz));
      across += jy * (e[2] * jy + 2.0f * e[4] * jz) + e[5] * jz * jz;
    }
    across *= 0.5f;
    const LaneF vague = lesser(across, LaneF{} + model.var_max);
    store(out + first, u);
    store(out + kKeys + first, v);
    store(out + 2 * kKeys + first, body * inverse * inverse);
    store(out + 3 * kKeys + first, (body + vague) * inverse * inverse);
  }
  return sum(ahead) > 0.0f;
}

// ---- costs -----------------------------------------------------------------------------------------------------------

// List in ws.shown the tracks that may appear anywhere in what a view shows, with their projections; usually few. Their
// windows move to the front of ws.windows. Returns the number of them.
FUSION_INLINE Size list_shown(const Workspace& ws, Size view, Size n_rows, const CostModel& model) {
  const Size width = padded_tracks(n_rows);
  float all[4] = {1e30f, -1e30f, 1e30f, -1e30f};
  for (Int d = ws.start[view]; d < ws.start[view + 1]; ++d)
    for (int side = 0; side < 4; ++side) {
      const float edge = ws.bounds[kBounds * d + side];
      all[side] = (side % 2 ? edge > all[side] : edge < all[side]) ? edge : all[side];
    }
  const double* camera = ws.camera_from_world + 12 * view;
  Size n_shown = 0;
  for (Size first = 0; first < width; first += kLanesF) {
    const LaneFMask near = overlapping(ws.windows + first, width, all);
    if (!any(near)) continue;
    int flags[kLanesF];
    store(flags, near);
    const Size n_here = n_rows - first < kLanesF ? n_rows - first : kLanesF;
    for (Size k = 0; k < n_here; ++k) {
      if (!flags[k]) continue;
      const Size track = first + k;
      float* kept = ws.projected + 4 * kKeys * n_shown;
      const float* state = ws.state_keys + kStateKeys * track;
      if (!project(state, camera, ws.dt_s[view], model, kept)) continue;
      // The write position never overtakes the read position.
      for (Size side = 0; side < 4; ++side) ws.windows[side * width + n_shown] = ws.windows[side * width + track];
      ws.shown[n_shown++] = Int(track);
    }
  }
  return n_shown;
}

// Costs of one detection against the shown tracks; emit(track, detection, cost) where a cost is below the gate.
//
// Tracks near enough are listed first, then compared, then judged: one loop with unpredictable branches is slower.
template <class Emit>
FUSION_INLINE void cost_of(const Workspace& ws, Int d, Size n_shown, Size width, const CostModel& model, double gate,
                           Emit emit) {
  const float* bound = ws.bounds + kBounds * d;
  if (!(bound[kCount] >= float(ws.joints_min))) return;
  Size n_near = 0;
  for (Size first = 0; first < n_shown; first += kLanesF) {
    int flags[kLanesF];
    store(flags, overlapping(ws.windows + first, width, bound));
    const Size n_here = n_shown - first < kLanesF ? n_shown - first : kLanesF;
    for (Size k = 0; k < n_here; ++k) {
      ws.near[n_near] = Int(first + k);
      n_near += flags[k] != 0;
    }
  }
  const float *keys = ws.seen_keys + kSeenKeys * d, count = bound[kCount];
  LaneF px[kKeyGroups], py[kKeyGroups], noise[kKeyGroups], seen[kKeyGroups];
#pragma GCC unroll 4
  for (Size g = 0; g < kKeyGroups; ++g) {
    load(px[g], keys + g * kLanesF);
    load(py[g], keys + kKeys + g * kLanesF);
    load(noise[g], keys + 2 * kKeys + g * kLanesF);
    load(seen[g], keys + 3 * kKeys + g * kLanesF);
  }
  const LaneF cap = LaneF{} + model.cap;
  for (Size i = 0; i < n_near; ++i) {
    const float* kept = ws.projected + 4 * kKeys * ws.near[i];
    LaneF total{};
#pragma GCC unroll 4
    for (Size g = 0; g < kKeyGroups; ++g) {
      LaneF u, v, spread;
      load(u, kept + g * kLanesF);
      load(v, kept + kKeys + g * kLanesF);
      load(spread, kept + 3 * kKeys + g * kLanesF);
      const LaneF du = px[g] - u, dv = py[g] - v;
      total += seen[g] * lesser((du * du + dv * dv) / (noise[g] + spread), cap);
    }
    ws.fits[i] = sum(total);
  }
  for (Size i = 0; i < n_near; ++i) {
    // NaN is refused here; it would keep the assignment searching for ever.
    if (!(ws.fits[i] < model.gate * count)) continue;
    const float* kept = ws.projected + 4 * kKeys * ws.near[i];
    LaneF of_body{}, of_all{};
#pragma GCC unroll 4
    for (Size g = 0; g < kKeyGroups; ++g) {
      LaneF body, spread;
      load(body, kept + 2 * kKeys + g * kLanesF);
      load(spread, kept + 3 * kKeys + g * kLanesF);
      of_body += seen[g] * body;
      of_all += seen[g] * spread;
    }
    const float wide = bound[kNoise] + sum(of_all), sharp = bound[kNoise] + sum(of_body);
    const double vaguer = wide > sharp ? double(wide) / double(sharp) : 1.0;
    const double cost = double(ws.fits[i] / count) + std::log(vaguer);
    if (cost < gate) emit(Size(ws.shown[ws.near[i]]), d, cost);
  }
}

// Matching cost of every pair of a predicted track and a detection below `gate`: with the squared Mahalanobis distance
// d_j^2 of key j, its variance in the image S_j (detector, body and prediction) and R_j (detector and body),
//
//   cost = mean_j min(d_j^2, cap) + log(sum_j S_j / sum_j R_j)   over the keys that the detection shows.
//
// begin(view) and end(view) enclose each view; emit(track, detection, cost) comes in order of detections, then tracks.
//
// A track's keys are moved to the instant of the view (dt_s from the state's) and projected. Uncertain joints count less;
// the logarithm charges for the uncertainty, so that a vague track cannot take a detection that a certain track explains
// as well. The variance of a prediction is bounded by prediction_var_max (m^2): a track unseen for long must not reach
// across the room for another person's detection.
//
// Most tracks are nowhere near most detections of a camera. Where their windows are apart every joint would cost the cap,
// which exceeds every gate, so the pair is skipped.
template <class Begin, class Emit, class End>
FUSION_INLINE void compare(const Workspace& ws, const Int* rows, Size n_rows, double gate, Begin begin, Emit emit,
                           End end) {
  bound_tracks(ws, rows, n_rows);
  const CostModel model(ws, gate);
  for (Size view = 0; view < ws.n_views; ++view) {
    begin(view);
    if (ws.start[view] == ws.start[view + 1]) continue;
    project_windows(ws, view, n_rows, model.body_max);
    const Size n_shown = list_shown(ws, view, n_rows, model);
    for (Int d = ws.start[view]; d < ws.start[view + 1]; ++d)
      cost_of(ws, d, n_shown, padded_tracks(n_rows), model, gate, emit);
    end(view);
  }
}

// All costs below the gate as a matrix, for tests: out (n_rows, n_detections), other cells left as they are.
inline void costs(const Workspace& ws, const Int* rows, Size n_rows, double gate, double* out) {
  const Size n = ws.start[ws.n_views];
  const auto nothing = [](Size) {};
  const auto write = [&](Size track, Int d, double cost) { out[track * n + d] = cost; };
  compare(ws, rows, n_rows, gate, nothing, write, nothing);
}

// ---- assignment ------------------------------------------------------------------------------------------------------

// Optimal assignment of n rows to m columns, n <= m, by shortest augmenting paths; cost (n, m), column_of (n) out.
// A view has at most kSide detections, so n is at most that. price (2 (m + 1)) and index (3 (m + 1)) are scratch.
// Source: Jonker and Volgenant, A shortest augmenting path algorithm for dense and sparse linear assignment problems
// (1987), in the form with potentials (dual prices).
inline void solve_assignment(const double* cost, Size n, Size m, Int* column_of, double* price, Int* index) {
  double row_price[kSide + 1] = {};
  double *column_price = price, *least = price + m + 1;
  Int *row_of = index, *previous = index + m + 1, *used = index + 2 * (m + 1);
  for (Size j = 0; j <= m; ++j) {
    column_price[j] = 0.0;
    row_of[j] = previous[j] = 0;
  }
  for (Size i = 1; i <= n; ++i) {
    row_of[0] = Int(i);
    Size column = 0;
    for (Size j = 0; j <= m; ++j) {
      least[j] = 1e300;
      used[j] = 0;
    }
    do {
      used[column] = 1;
      const Size row = Size(row_of[column]);
      double delta = 1e300;
      Size following = 0;
      for (Size j = 1; j <= m; ++j) {
        if (used[j]) continue;
        const double reduced = cost[(row - 1) * m + j - 1] - row_price[row] - column_price[j];
        if (reduced < least[j]) {
          least[j] = reduced;
          previous[j] = Int(column);
        }
        if (least[j] < delta) {
          delta = least[j];
          following = j;
        }
      }
      for (Size j = 0; j <= m; ++j) {
        if (used[j]) {
          row_price[row_of[j]] += delta;
          column_price[j] -= delta;
        } else {
          least[j] -= delta;
        }
      }
      column = following;
    } while (row_of[column] != 0);
    while (column != 0) {
      const Size before = Size(previous[column]);
      row_of[column] = row_of[before];
      column = before;
    }
  }
  for (Size j = 1; j <= m; ++j)
    if (row_of[j] > 0) column_of[row_of[j] - 1] = Int(j - 1);
}

// Cost of the difference between the appearances of a track and a detection: the cosine distance of unit vectors over
// appearance_scale; zero where either is unknown (all zero).
FUSION_INLINE double appearance_cost(const Workspace& ws, Int row, Int detection) {
  const double* a = ws.track_appearance + row * ws.appearance_dim;
  const double* b = ws.appearance + detection * ws.appearance_dim;
  double dot = 0.0, known_a = 0.0, known_b = 0.0;
  for (Size i = 0; i < ws.appearance_dim; ++i) {
    dot += a[i] * b[i];
    known_a += a[i] * a[i];
    known_b += b[i] * b[i];
  }
  return known_a > 0.0 && known_b > 0.0 ? (1.0 - dot) / ws.appearance_scale : 0.0;
}

// Values of track_of other than the index of a track.
constexpr Int kUnassigned = -1, kDuplicateDetection = -2, kInGroup = -3;

// The assignment of one view, by connected components: tracks and detections that share no pair, through any number of
// others, are assigned apart. Components are disjoint sets over the tracks (first) and the view's detections.
struct ViewAssignment {
  const Workspace& ws;
  Size n_rows, n_pairs;
  Int *leader, *tracks, *detections, *place_of, *column_of, *index;

  ViewAssignment(const Workspace& workspace, Size n) : ws(workspace), n_rows(n), n_pairs(0) {
    leader = ws.list;
    tracks = leader + ws.capacity + kSide;
    detections = tracks + ws.capacity;
    place_of = detections + kSide;
    column_of = place_of + ws.capacity + kSide;
    index = column_of + kSide;
    for (Size t = 0; t < n_rows; ++t) leader[t] = Int(t);
  }

  // The representative of a component, with path halving: its first track.
  FUSION_INLINE Int find(Int member) const {
    while (leader[member] != member) member = leader[member] = leader[leader[member]];
    return member;
  }

  FUSION_INLINE void add(Size track, Int d, double cost) {
    ws.pair_track[n_pairs] = Int(track);
    ws.pair_detection[n_pairs] = d;
    ws.pair_cost[n_pairs++] = cost;
  }

  FUSION_INLINE Int& assigned(Int track, Size view) const { return ws.detection_of[Size(track) * ws.n_views + view]; }

  FUSION_INLINE void unite(Size view) const {
    const Int first = ws.start[view], n_here = ws.start[view + 1] - first, offset = Int(n_rows) - first;
    for (Int k = 0; k < n_here; ++k) leader[n_rows + k] = Int(n_rows) + k;
    for (Size p = 0; p < n_pairs; ++p) {
      const Int a = find(ws.pair_track[p]), b = find(ws.pair_detection[p] + offset);
      leader[a < b ? b : a] = a < b ? a : b;
    }
  }

  // Assign the component whose first pair is q.
  FUSION_INLINE void solve_component(Size q, Size view) const {
    const Int first = ws.start[view], component = find(ws.pair_track[q]);
    Size n_tracks = 0, n_found = 0, n_own = 0;
    for (Size p = q; p < n_pairs; ++p) {
      if (find(ws.pair_track[p]) != component) continue;
      ++n_own;
      const Int track = ws.pair_track[p], d = ws.pair_detection[p];
      if (ws.track_of[d] != kInGroup) {
        ws.track_of[d] = kInGroup;
        place_of[ws.capacity + Size(d - first)] = Int(n_found);
        detections[n_found++] = d;
      }
      Size at = 0;
      while (at < n_tracks && tracks[at] != track) ++at;
      if (at == n_tracks) {
        place_of[track] = Int(n_tracks);
        tracks[n_tracks++] = track;
      }
    }
    if (n_own == 1) {
      assigned(tracks[0], view) = detections[0];
      return;
    }
    const bool by_track = n_tracks <= n_found;
    const Size n = by_track ? n_tracks : n_found, m = by_track ? n_found : n_tracks;
    for (Size cell = 0; cell < n * m; ++cell) ws.dense[cell] = ws.match_gate;
    for (Size p = q; p < n_pairs; ++p) {
      if (find(ws.pair_track[p]) != component) continue;
      const Size t = Size(place_of[ws.pair_track[p]]);
      const Size d = Size(place_of[ws.capacity + Size(ws.pair_detection[p] - first)]);
      ws.dense[by_track ? t * m + d : d * m + t] = ws.pair_cost[p];
    }
    solve_assignment(ws.dense, n, m, column_of, ws.dense + n * m, index);
    for (Size row = 0; row < n; ++row) {
      const Size column = Size(column_of[row]);
      if (!(ws.dense[row * m + column] < ws.match_gate)) continue;
      assigned(tracks[by_track ? row : column], view) = detections[by_track ? column : row];
    }
  }

  inline void solve(Size view) const {
    unite(view);
    for (Size q = 0; q < n_pairs; ++q)
      if (ws.track_of[ws.pair_detection[q]] != kInGroup) solve_component(q, view);
    for (Int d = ws.start[view]; d < ws.start[view + 1]; ++d) ws.track_of[d] = kUnassigned;
    for (Size p = 0; p < n_pairs; ++p)
      if (assigned(ws.pair_track[p], view) == ws.pair_detection[p])
        ws.track_of[ws.pair_detection[p]] = ws.pair_track[p];
    for (Size p = 0; p < n_pairs; ++p) {
      Int& track_of = ws.track_of[ws.pair_detection[p]];
      const bool got_better = assigned(ws.pair_track[p], view) >= 0;
      if (got_better && track_of == kUnassigned && ws.pair_cost[p] < ws.duplicate_gate) track_of = kDuplicateDetection;
      leader[ws.pair_track[p]] = ws.pair_track[p];
    }
  }
};

// Assign every camera's detections to tracks at least total cost, no pair above match_gate.
//
// Clipping the costs at the gate and dropping pairs that reach it equals an assignment in which every track and every
// detection may stay alone at the price of the gate. A detection left over that fits, below duplicate_gate, a track which
// got a better detection in the same view shows the same person twice: it is set aside, so that it cannot start a second
// track.
//
// Writes track_of (n_detections): track, kUnassigned or kDuplicateDetection; detection_of (n_rows, n_views): detection
// or -1.
inline void match(const Workspace& ws, const Int* rows, Size n_rows) {
  const Int n_detections = ws.start[ws.n_views];
  for (Int d = 0; d < n_detections; ++d) ws.track_of[d] = kUnassigned;
  for (Size cell = 0; cell < n_rows * ws.n_views; ++cell) ws.detection_of[cell] = -1;
  if (n_rows == 0) return;
  ViewAssignment assignment(ws, n_rows);
  const auto begin = [&](Size) { assignment.n_pairs = 0; };
  const auto emit = [&](Size track, Int d, double cost) {
    if (ws.appearance_dim) cost += appearance_cost(ws, rows[track], d);
    if (cost < ws.match_gate) assignment.add(track, d, cost);
  };
  const auto end = [&](Size view) { assignment.solve(view); };
  compare(ws, rows, n_rows, ws.match_gate, begin, emit, end);
}

}  // namespace FUSION_ISA
}  // namespace fusion
