// Causal attention of short heads in float32: forward, and the whole backward in one pass.
//
// A strip of ROWS queries meets all its keys at once, so that its scores stay in the nearest caches and the
// softmax needs no rescaling; everything else is one register tile. Keys and values are also laid out [d, T],
// since scores are vectors over keys. A task is a head, with all queries that share it: what it sums, and in
// which order, does not depend on the number of threads.
//
// B batch, H query heads, K key/value heads, T positions, d (D) head dimension.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <memory>

namespace {

#if defined(__AVX512F__)
constexpr int LANES = 16, TILE_ROWS = 8;  // 16 accumulators of 32 registers
#else
constexpr int LANES = 8, TILE_ROWS = 4;  // 8 accumulators of 16
#endif
constexpr int TILE_KEYS = 2 * LANES, ROWS = 16;

typedef float Vec __attribute__((vector_size(4 * LANES)));
typedef int32_t Ints __attribute__((vector_size(4 * LANES)));

inline Vec load(const float* from) {
  Vec x;
  std::memcpy(&x, from, sizeof x);
  return x;
}

inline void store(float* to, Vec x) { std::memcpy(to, &x, sizeof x); }

inline Vec all(float x) { return x - Vec{}; }

inline Ints lanes() {
  Ints lane;
  for (int i = 0; i < LANES; ++i) lane[i] = i;
  return lane;
}

template <typename Join>
inline float folded(Vec x, Join join) {
  float parts[LANES];
  store(parts, x);
  for (int half = LANES / 2; half > 0; half /= 2)
    for (int i = 0; i < half; ++i) parts[i] = join(parts[i], parts[i + half]);
  return parts[0];
}

inline float largest(Vec x) {
  return folded(x, [](float a, float b) { return a > b ? a : b; });
}

inline float sum(Vec x) {
  return folded(x, [](float a, float b) { return a + b; });
}

// 2^x for x <= 0, the Taylor series of 2^f to f^7 for |f| <= 1/2 (5e-9 of it left out); 2^-125 for anything smaller.
inline Vec exp2(Vec x) {
  constexpr float magic = 12582912.f;  // 1.5 * 2^23: adding it rounds to an integer, in the last bits
  x = x < -125.f ? all(-125.f) : x;
  const Vec shifted = x + magic, f = x - (shifted - magic);
  Vec y = all(1.52527338e-5f);  // ln(2)^k / k!
  y = y * f + 1.54035304e-4f;
  y = y * f + 1.33335581e-3f;
  y = y * f + 9.61812911e-3f;
  y = y * f + 5.55041087e-2f;
  y = y * f + 2.40226507e-1f;
  y = y * f + 6.93147181e-1f;
  y = y * f + 1.f;
  return reinterpret_cast<Vec>(reinterpret_cast<Ints>(y) + (reinterpret_cast<Ints>(shifted) << 23));
}

// c[M, N vectors] (+)= a[M, depth] b[depth, N vectors]; a is read at m * a_row + k * a_column.
template <int M, int N, bool ADDS>
inline __attribute__((always_inline)) void tile(int64_t depth, const float* a, int64_t a_row, int64_t a_column,
                                                const float* b, int64_t b_row, float* c, int64_t c_row) {
  Vec sums[M][N];
#pragma GCC unroll 32
  for (int m = 0; m < M; ++m)
#pragma GCC unroll 8
    for (int n = 0; n < N; ++n) sums[m][n] = Vec{};
  for (int64_t k = 0; k < depth; ++k) {
    Vec right[N];
#pragma GCC unroll 8
    for (int n = 0; n < N; ++n) right[n] = load(b + k * b_row + n * LANES);
#pragma GCC unroll 32
    for (int m = 0; m < M; ++m)
#pragma GCC unroll 8
      for (int n = 0; n < N; ++n) sums[m][n] += a[m * a_row + k * a_column] * right[n];
  }
#pragma GCC unroll 32
  for (int m = 0; m < M; ++m)
#pragma GCC unroll 8
    for (int n = 0; n < N; ++n) {
      float* to = c + m * c_row + n * LANES;
      store(to, ADDS ? load(to) + sums[m][n] : sums[m][n]);
    }
}

// scores[ROWS, TILE_KEYS] = strip[ROWS, D] keys[D, TILE_KEYS].
template <int D>
inline void against_keys(const float* strip, const float* keys_dT, int64_t padded, float* scores) {
  for (int row = 0; row < ROWS; row += TILE_ROWS)
    tile<TILE_ROWS, 2, false>(D, strip + row * D, D, 1, keys_dT, padded, scores + row * padded, padded);
}

// c[rows, D] (+)= a[rows, depth] b[depth, D]; rows a multiple of ROWS.
template <int D, bool ADDS>
inline void into_heads(int64_t rows, int64_t depth, const float* a, int64_t a_row, int64_t a_column, const float* b,
                       float* c) {
  constexpr int N = std::min(D / LANES, 4), M = 2 * TILE_ROWS / N;
  static_assert(D % (N * LANES) == 0 && ROWS % M == 0);
  for (int64_t row = 0; row < rows; row += M)
    for (int first = 0; first < D; first += N * LANES)
      tile<M, N, ADDS>(depth, a + row * a_row, a_row, a_column, b + first, D, c + row * D + first, D);
}

struct Heads {  // [B, heads, T, d], the last contiguous
  float* data;
  int64_t batch, head, row;
  float* at(int64_t b, int64_t h) const { return data + b * batch + h * head; }
};

struct Problem {
  Heads q, k, v, out, dout, dq, dk, dv;
  float* lse;  // [B, H, T], of scores in units of ln 2
  int64_t batch, heads, kv_heads, length, window, threads;
  double scale;
};

constexpr double LOG2_E = 1.44269504088896340736;

struct Scratch {
  explicit Scratch(int64_t floats)
      : data(static_cast<float*>(std::aligned_alloc(64, (floats * sizeof(float) + 63) / 64 * 64))) {}
  float* take(int64_t floats) {
    float* from = data.get() + used;
    used += floats;
    return from;
  }
  struct Free {
    void operator()(float* p) const { std::free(p); }
  };
  std::unique_ptr<float, Free> data;
  int64_t used = 0;
};

template <int D>
void copy_rows(const float* from, int64_t stride, int64_t rows, int64_t padded, float scale, float* to) {
  for (int64_t t = 0; t < rows; ++t)
    for (int i = 0; i < D; ++i) to[t * D + i] = from[t * stride + i] * scale;
  std::memset(to + rows * D, 0, (padded - rows) * D * sizeof(float));
}

template <int D>
void write_rows(const float* from, int64_t rows, float scale, float* to, int64_t stride) {
  for (int64_t t = 0; t < rows; ++t)
    for (int i = 0; i < D; ++i) to[t * stride + i] = from[t * D + i] * scale;
}

template <int D>
void transpose(const float* from_TD, int64_t padded, float* to_DT) {
  for (int64_t t = 0; t < padded; ++t)
    for (int i = 0; i < D; ++i) to_DT[i * padded + t] = from_TD[t * D + i];
}

// Where the keys of a strip of queries begin and end, in whole tiles, and which of them a row sees.
struct Reach {
  int64_t begin, end;
  Reach(const Problem& p, int64_t first)
      : begin(std::max<int64_t>(0, first - p.window + 1) / TILE_KEYS * TILE_KEYS),
        end((std::min(first + ROWS, p.length) + TILE_KEYS - 1) / TILE_KEYS * TILE_KEYS) {}
};

// x where a row sees the keys from `key` on, `hidden` elsewhere.
inline Vec where_seen(Vec x, float hidden, int64_t row, int64_t window, int64_t key) {
  if (key + LANES - 1 <= row && key > row - window) return x;
  const Ints keys = lanes() + static_cast<int32_t>(key);
  return (keys <= static_cast<int32_t>(row)) & (keys > static_cast<int32_t>(row - window)) ? x : all(hidden);
}

inline int64_t padded_length(int64_t length) { return (length + TILE_KEYS - 1) / TILE_KEYS * TILE_KEYS; }

// One row of scores becomes weights exp2(score - largest), zero where nothing is seen; their sum.
inline float weigh(float* scores, const Reach& reach, int64_t row, int64_t window, float& most) {
  constexpr float lowest = -std::numeric_limits<float>::infinity();
  Vec peak = all(lowest);
  for (int64_t key = reach.begin; key < reach.end; key += LANES) {
    const Vec x = where_seen(load(scores + key), lowest, row, window, key);
    peak = x > peak ? x : peak;
  }
  most = largest(peak);
  Vec total{};
  for (int64_t key = reach.begin; key < reach.end; key += LANES) {
    const Vec weight = where_seen(exp2(load(scores + key) - most), 0, row, window, key);
    store(scores + key, weight);
    total += weight;
  }
  return sum(total);
}

template <int D>
void forward_head(const Problem& p, int64_t b, int64_t h, Scratch& scratch) {
  const int64_t padded = padded_length(p.length), kv = h / (p.heads / p.kv_heads);
  float* keys = scratch.take(padded * D);
  float* keys_dT = scratch.take(padded * D);
  float* values = scratch.take(padded * D);
  float* strip = scratch.take(ROWS * D);
  float* scores = scratch.take(ROWS * padded);
  float* mixed = scratch.take(ROWS * D);
  copy_rows<D>(p.k.at(b, kv), p.k.row, p.length, padded, 1, keys);
  copy_rows<D>(p.v.at(b, kv), p.v.row, p.length, padded, 1, values);
  transpose<D>(keys, padded, keys_dT);
  for (int64_t first = 0; first < p.length; first += ROWS) {
    const int64_t rows = std::min<int64_t>(ROWS, p.length - first);
    const Reach reach(p, first);
    copy_rows<D>(p.q.at(b, h) + first * p.q.row, p.q.row, rows, ROWS, p.scale * LOG2_E, strip);
    for (int64_t key = reach.begin; key < reach.end; key += TILE_KEYS)
      against_keys<D>(strip, keys_dT + key, padded, scores + key);
    float shares[ROWS];
    for (int64_t row = 0; row < ROWS; ++row) {
      float most;
      const int64_t query = std::min(first + row, p.length - 1);
      const float total = weigh(scores + row * padded, reach, query, p.window, most);
      shares[row] = 1 / total;
      if (row < rows) p.lse[(b * p.heads + h) * p.length + query] = most + std::log2(total);
    }
    into_heads<D, false>(ROWS, reach.end - reach.begin, scores + reach.begin, padded, 1, values + reach.begin * D,
                         mixed);
    for (int64_t row = 0; row < rows; ++row)
      write_rows<D>(mixed + row * D, 1, shares[row], p.out.at(b, h) + (first + row) * p.out.row, 0);
  }
}

// The weights of a tile again, and the gradients of its scores (times ln 2 / scale).
inline void differentiate(float* weights, float* slopes, int64_t key, int64_t row, int64_t window, float lse,
                          float delta) {
  const Vec weight = where_seen(exp2(load(weights) - lse), 0, row, window, key);
  store(weights, weight);
  store(slopes, weight * (load(slopes) - delta));
}

template <int D>
void backward_head(const Problem& p, int64_t b, int64_t kv, Scratch& scratch) {
  const int64_t padded = padded_length(p.length), group = p.heads / p.kv_heads;
  float* keys = scratch.take(padded * D);
  float* keys_dT = scratch.take(padded * D);
  float* values_dT = scratch.take(padded * D);
  float* dkeys = scratch.take(padded * D);
  float* dvalues = scratch.take(padded * D);
  float* strip = scratch.take(ROWS * D);
  float* dstrip = scratch.take(ROWS * D);
  float* dq = scratch.take(ROWS * D);
  float* weights = scratch.take(ROWS * padded);
  float* slopes = scratch.take(ROWS * padded);
  copy_rows<D>(p.v.at(b, kv), p.v.row, p.length, padded, 1, keys);
  transpose<D>(keys, padded, values_dT);
  copy_rows<D>(p.k.at(b, kv), p.k.row, p.length, padded, 1, keys);
  transpose<D>(keys, padded, keys_dT);
  std::memset(dkeys, 0, padded * D * sizeof(float));
  std::memset(dvalues, 0, padded * D * sizeof(float));
  for (int64_t h = kv * group; h < (kv + 1) * group; ++h)
    for (int64_t first = 0; first < p.length; first += ROWS) {
      const int64_t rows = std::min<int64_t>(ROWS, p.length - first);
      const Reach reach(p, first);
      const float* dout = p.dout.at(b, h) + first * p.dout.row;
      const float* out = p.out.at(b, h) + first * p.out.row;
      copy_rows<D>(p.q.at(b, h) + first * p.q.row, p.q.row, rows, ROWS, p.scale * LOG2_E, strip);
      copy_rows<D>(dout, p.dout.row, rows, ROWS, 1, dstrip);
      float lse[ROWS] = {}, delta[ROWS] = {};
      for (int64_t row = 0; row < rows; ++row) {
        Vec along{};
        for (int i = 0; i < D; i += LANES)
          along += load(out + row * p.out.row + i) * load(dout + row * p.dout.row + i);
        delta[row] = sum(along);
        lse[row] = p.lse[(b * p.heads + h) * p.length + first + row];
      }
      for (int64_t key = reach.begin; key < reach.end; key += TILE_KEYS) {
        against_keys<D>(strip, keys_dT + key, padded, weights + key);
        against_keys<D>(dstrip, values_dT + key, padded, slopes + key);
        for (int64_t row = 0; row < ROWS; ++row)
          for (int64_t at = row * padded + key; at < row * padded + key + TILE_KEYS; at += LANES)
            differentiate(weights + at, slopes + at, at - row * padded, first + row, p.window, lse[row], delta[row]);
      }
      const int64_t span = reach.end - reach.begin;
      into_heads<D, false>(ROWS, span, slopes + reach.begin, padded, 1, keys + reach.begin * D, dq);
      write_rows<D>(dq, rows, p.scale, p.dq.at(b, h) + first * p.dq.row, p.dq.row);
      into_heads<D, true>(span, ROWS, weights + reach.begin, 1, padded, dstrip, dvalues + reach.begin * D);
      into_heads<D, true>(span, ROWS, slopes + reach.begin, 1, padded, strip, dkeys + reach.begin * D);
    }
  write_rows<D>(dkeys, p.length, 1 / LOG2_E, p.dk.at(b, kv), p.dk.row);
  write_rows<D>(dvalues, p.length, 1, p.dv.at(b, kv), p.dv.row);
}

template <int D>
void forward(const Problem& p) {
  const int64_t padded = padded_length(p.length), floats = padded * (3 * D + ROWS) + 2 * ROWS * D;
#pragma omp parallel for num_threads(p.threads) schedule(static)
  for (int64_t task = 0; task < p.batch * p.heads; ++task) {
    Scratch scratch(floats);
    forward_head<D>(p, task / p.heads, task % p.heads, scratch);
  }
}

template <int D>
void backward(const Problem& p) {
  const int64_t padded = padded_length(p.length), floats = padded * (5 * D + 2 * ROWS) + 3 * ROWS * D;
#pragma omp parallel for num_threads(p.threads) schedule(static)
  for (int64_t task = 0; task < p.batch * p.kv_heads; ++task) {
    Scratch scratch(floats);
    backward_head<D>(p, task / p.kv_heads, task % p.kv_heads, scratch);
  }
}

}  // namespace

extern "C" {
void forward_16(const Problem* p) { forward<16>(*p); }
void forward_32(const Problem* p) { forward<32>(*p); }
void forward_64(const Problem* p) { forward<64>(*p); }
void forward_128(const Problem* p) { forward<128>(*p); }
void backward_16(const Problem* p) { backward<16>(*p); }
void backward_32(const Problem* p) { backward<32>(*p); }
void backward_64(const Problem* p) { backward<64>(*p); }
void backward_128(const Problem* p) { backward<128>(*p); }
}
