// Sums over the kept entries and Adam. Plain C interface, no PyTorch headers; matrices are row-major, contiguous.
//
// Matrices over tokens are used in packed form: [slab][token][SLAB], the columns cut into slabs and the last one
// padded with zeros. One slab of a batch fits a second-level cache, which rows of a power-of-two width would not
// (their columns share cache sets), and a slab's sums fit the vector registers.
// Every output element is summed by one thread in a fixed order: results do not depend on the number of threads.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

namespace {

constexpr int64_t LANES = 16, PARTS = 4, SLAB = LANES * PARTS;
typedef float Vec __attribute__((vector_size(64), aligned(4), may_alias));
typedef float Half __attribute__((vector_size(32), may_alias));
typedef float Quarter __attribute__((vector_size(16), may_alias));

struct Slab {
    Vec part[PARTS];
};

inline Slab load(const float* p) {
    Slab s;
    for (int64_t u = 0; u < PARTS; u++) s.part[u] = *reinterpret_cast<const Vec*>(p + u * LANES);
    return s;
}

inline void store(const Slab& s, float* p) {
    for (int64_t u = 0; u < PARTS; u++) *reinterpret_cast<Vec*>(p + u * LANES) = s.part[u];
}

// the columns [first, first + SLAB) of a row, zeros beyond its width
inline Slab load_columns(const float* row, int64_t first, int64_t width) {
    if (first + SLAB <= width) return load(row + first);
    float padded[SLAB] = {};
    std::copy(row + first, row + width, padded);
    return load(padded);
}

inline void store_columns(const Slab& s, float* row, int64_t first, int64_t width) {
    if (first + SLAB <= width) return store(s, row + first);
    float padded[SLAB];
    store(s, padded);
    std::copy(padded, padded + width - first, row + first);
}

inline void add_scaled(Slab& sum, float factor, const Slab& a) {
    for (int64_t u = 0; u < PARTS; u++) sum.part[u] += factor * a.part[u];
}

inline float dot(const Slab& a, const Slab& b) {
    const Vec v = (a.part[0] * b.part[0] + a.part[1] * b.part[1]) + (a.part[2] * b.part[2] + a.part[3] * b.part[3]);
    Half halves[2];
    std::memcpy(halves, &v, sizeof v);
    const Half h = halves[0] + halves[1];
    Quarter quarters[2];
    std::memcpy(quarters, &h, sizeof h);
    const Quarter q = quarters[0] + quarters[1];
    return (q[0] + q[1]) + (q[2] + q[3]);
}

constexpr int64_t AHEAD = 8;

// ask for the columns that the group after the next few will need: strided rows escape the hardware prefetcher
template <int WRITE = 0>
inline void prefetch(const float* matrix, int64_t row, int64_t width, int64_t slab) {
    for (int64_t u = 0; u < PARTS; u++) __builtin_prefetch(matrix + row * width + slab * SLAB + u * LANES, WRITE);
}

inline int64_t n_slabs(int64_t width) { return (width + SLAB - 1) / SLAB; }

// bounds of the `part`-th of `parts` runs of groups with about equally many entries
int64_t cut_groups(const int64_t* start, int64_t n_groups, int64_t part, int64_t parts) {
    return std::lower_bound(start, start + n_groups, start[n_groups] * part / parts) - start;
}

}  // namespace

extern "C" {

void pack(const float* matrix, int64_t n_rows, int64_t width, float* packed, int threads) {
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t r = 0; r < n_rows; r++)
        for (int64_t slab = 0; slab < n_slabs(width); slab++)
            store(load_columns(matrix + r * width, slab * SLAB, width), packed + (slab * n_rows + r) * SLAB);
}

// Entries are grouped by latent from here on: group r is latent[r] with the entries [start[r], start[r + 1]).

// out[q] = <x[token[q]], encoder[latent[r]]>
void scores(const int64_t* latent, const int64_t* start, const int64_t* token, int64_t n_groups, const float* x,
            int64_t n_tokens, const float* encoder, int64_t width, float* out, int threads) {
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int part = 0; part < threads; part++) {
        const int64_t from = cut_groups(start, n_groups, part, threads);
        const int64_t to = cut_groups(start, n_groups, part + 1, threads);
        std::fill(out + start[from], out + start[to], 0.f);
        for (int64_t slab = 0; slab < n_slabs(width); slab++)
            for (int64_t r = from; r < to; r++) {
                if (r + AHEAD < to) prefetch(encoder, latent[r + AHEAD], width, slab);
                const Slab row = load_columns(encoder + latent[r] * width, slab * SLAB, width);
                for (int64_t q = start[r]; q < start[r + 1]; q++)
                    out[q] += dot(row, load(x + (slab * n_tokens + token[q]) * SLAB));
            }
    }
}

// out[t] = sum over entries of token t of value[q] * decoder[latent[r]]
void decode(const int64_t* latent, const int64_t* start, const int64_t* token, int64_t n_groups, const float* value,
            const float* decoder, int64_t width, int64_t n_tokens, float* out, int threads) {
#pragma omp parallel num_threads(threads)
    {
        std::vector<float> sums(n_tokens * SLAB);
#pragma omp for schedule(dynamic)
        for (int64_t slab = 0; slab < n_slabs(width); slab++) {
            std::fill(sums.begin(), sums.end(), 0.f);
            for (int64_t r = 0; r < n_groups; r++) {
                if (r + AHEAD < n_groups) prefetch(decoder, latent[r + AHEAD], width, slab);
                if (start[r] == start[r + 1]) continue;
                const Slab direction = load_columns(decoder + latent[r] * width, slab * SLAB, width);
                for (int64_t q = start[r]; q < start[r + 1]; q++) {
                    float* at = sums.data() + token[q] * SLAB;
                    Slab sum = load(at);
                    add_scaled(sum, value[q], direction);
                    store(sum, at);
                }
            }
            for (int64_t t = 0; t < n_tokens; t++)
                store_columns(load(sums.data() + t * SLAB), out + t * width, slab * SLAB, width);
        }
    }
}

// decoder_gradient[r] = sum value[q] g[token[q]]; df[q] = <g[token[q]], decoder[latent[r]]>;
// encoder_gradient[r] = sum df[q] x[token[q]]; bias_gradient[r] = sum df[q]
void backward(const int64_t* latent, const int64_t* start, const int64_t* token, int64_t n_groups,
              const float* value, const float* x, const float* g, int64_t n_tokens, const float* decoder,
              int64_t width, float* df, float* encoder_gradient, float* bias_gradient, float* decoder_gradient,
              int threads) {
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int part = 0; part < threads; part++) {
        const int64_t from = cut_groups(start, n_groups, part, threads);
        const int64_t to = part + 1 < threads ? cut_groups(start, n_groups, part + 1, threads) : n_groups;
        std::fill(df + start[from], df + start[to], 0.f);
        for (int64_t slab = 0; slab < n_slabs(width); slab++)
            for (int64_t r = from; r < to; r++) {
                if (r + AHEAD < to) {
                    prefetch(decoder, latent[r + AHEAD], width, slab);
                    prefetch<1>(decoder_gradient, r + AHEAD, width, slab);
                }
                const Slab direction = load_columns(decoder + latent[r] * width, slab * SLAB, width);
                Slab sum{};
                for (int64_t q = start[r]; q < start[r + 1]; q++) {
                    const Slab gt = load(g + (slab * n_tokens + token[q]) * SLAB);
                    add_scaled(sum, value[q], gt);
                    df[q] += dot(direction, gt);
                }
                store_columns(sum, decoder_gradient + r * width, slab * SLAB, width);
            }
        for (int64_t slab = 0; slab < n_slabs(width); slab++)
            for (int64_t r = from; r < to; r++) {
                if (r + AHEAD < to) prefetch<1>(encoder_gradient, r + AHEAD, width, slab);
                Slab sum{};
                for (int64_t q = start[r]; q < start[r + 1]; q++)
                    add_scaled(sum, df[q], load(x + (slab * n_tokens + token[q]) * SLAB));
                store_columns(sum, encoder_gradient + r * width, slab * SLAB, width);
            }
        for (int64_t r = from; r < to; r++) {
            bias_gradient[r] = 0;
            for (int64_t q = start[r]; q < start[r + 1]; q++) bias_gradient[r] += df[q];
        }
    }
}

// Adam over rows: row_of[r] is the row of `gradient` that belongs to weight row r; -1 is a gradient of 0, or with
// `skip` a row to leave alone
void adam(int64_t n_rows, int64_t width, const int64_t* row_of, const float* gradient, float* weight, float* mean,
          float* square, double clip, double beta1, double beta2, double rate, double root_correction, double eps,
          int64_t skip, int threads) {
    const float keep1 = beta1, keep2 = beta2, add1 = (1 - beta1) * clip, add2 = (1 - beta2) * clip * clip;
    const float step = rate, root = 1 / root_correction, floor = eps;
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t r = 0; r < n_rows; r++) {
        if (skip && row_of[r] < 0) continue;
        float* __restrict w = weight + r * width;
        float* __restrict m = mean + r * width;
        float* __restrict v = square + r * width;
        const float* __restrict g = gradient + row_of[r] * width;
        if (row_of[r] < 0)
            for (int64_t i = 0; i < width; i++) m[i] *= keep1, v[i] *= keep2;
        else
            for (int64_t i = 0; i < width; i++) {
                m[i] = keep1 * m[i] + add1 * g[i];
                v[i] = keep2 * v[i] + add2 * g[i] * g[i];
            }
        for (int64_t i = 0; i < width; i++) w[i] -= step * m[i] / (std::sqrt(v[i]) * root + floor);
    }
}
}
