// The sparse part of a training step. Plain C interface, no PyTorch headers; all matrices are row-major and
// contiguous. Every output element is summed by one thread in a fixed order, so results do not depend on timing.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>

namespace {

constexpr int64_t LANES = 16;
typedef float Vec __attribute__((vector_size(64), aligned(4), may_alias));

inline Vec load(const float* p) { return *reinterpret_cast<const Vec*>(p); }
inline void store(float* p, Vec v) { *reinterpret_cast<Vec*>(p) = v; }
inline Vec splat(float value) { return value - Vec{}; }

inline float total(Vec v) {
    float sum = 0;
    for (int64_t i = 0; i < LANES; i++) sum += v[i];
    return sum;
}

inline float widen(float value) { return value; }
inline float widen(uint16_t bfloat16) {
    uint32_t bits = static_cast<uint32_t>(bfloat16) << 16;
    float value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
}

float dot(const float* a, const float* b, int64_t n) {
    Vec s0{}, s1{}, s2{}, s3{};
    int64_t i = 0;
    for (; i + 4 * LANES <= n; i += 4 * LANES) {
        s0 += load(a + i) * load(b + i);
        s1 += load(a + i + LANES) * load(b + i + LANES);
        s2 += load(a + i + 2 * LANES) * load(b + i + 2 * LANES);
        s3 += load(a + i + 3 * LANES) * load(b + i + 3 * LANES);
    }
    for (; i + LANES <= n; i += LANES) s0 += load(a + i) * load(b + i);
    float sum = total((s0 + s1) + (s2 + s3));
    for (; i < n; i++) sum += a[i] * b[i];
    return sum;
}

// out += factor * a
inline void add_scaled(float factor, const float* a, float* out, int64_t n) {
    const Vec f = splat(factor);
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES) store(out + i, load(out + i) + f * load(a + i));
    for (; i < n; i++) out[i] += factor * a[i];
}

// out[0:n] = sum over entries of weight * rows[index], n at most BLOCK, with the sums kept in registers
constexpr int64_t BLOCK = 16 * LANES;
void weighted_rows(const int64_t* index, const float* weight, int64_t count, const float* rows, int64_t stride,
                   float* out, int64_t n) {
    if (n < BLOCK) {
        std::fill(out, out + n, 0.f);
        for (int64_t q = 0; q < count; q++) add_scaled(weight[q], rows + index[q] * stride, out, n);
        return;
    }
    Vec sum[BLOCK / LANES] = {};
    for (int64_t q = 0; q < count; q++) {
        const Vec f = splat(weight[q]);
        const float* row = rows + index[q] * stride;
        for (int64_t u = 0; u < BLOCK / LANES; u++) sum[u] += f * load(row + u * LANES);
    }
    for (int64_t u = 0; u < BLOCK / LANES; u++) store(out + u * LANES, sum[u]);
}

// bits[row] has bit j set where z[row, j] > cut[j]; counts[row] is their number
template <class T>
void mark(const T* z, const float* cut, int64_t n_rows, int64_t n_columns, uint64_t* bits, int64_t* counts,
          int threads) {
    const int64_t words = (n_columns + 63) / 64;
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t r = 0; r < n_rows; r++) {
        int64_t count = 0;
        for (int64_t word = 0; word < words; word++) {
            const int64_t first = word * 64, n = std::min<int64_t>(64, n_columns - first);
            const T* zr = z + r * n_columns + first;
            const float* c = cut + first;
            int any = 0;
            if (n == 64) {
#pragma omp simd reduction(| : any)
                for (int64_t j = 0; j < 64; j++) any |= widen(zr[j]) > c[j];
            } else {
                any = 1;
            }
            uint64_t found = 0;
            if (any)
                for (int64_t j = 0; j < n; j++) found |= static_cast<uint64_t>(widen(zr[j]) > c[j]) << j;
            bits[r * words + word] = found;
            count += __builtin_popcountll(found);
        }
        counts[r] = count;
    }
}

template <class T>
void gather(const T* z, const uint64_t* bits, const int64_t* start, int64_t n_rows, int64_t n_columns,
            int64_t* row, int64_t* column, float* value, int threads) {
    const int64_t words = (n_columns + 63) / 64;
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t r = 0; r < n_rows; r++) {
        int64_t q = start[r];
        for (int64_t word = 0; word < words; word++)
            for (uint64_t left = bits[r * words + word]; left; left &= left - 1, q++) {
                const int64_t j = word * 64 + __builtin_ctzll(left);
                row[q] = r;
                column[q] = j;
                value[q] = widen(z[r * n_columns + j]);
            }
    }
}

}  // namespace

extern "C" {

void mark_float32(const float* z, const float* cut, int64_t n_rows, int64_t n_columns, uint64_t* bits,
                  int64_t* counts, int threads) {
    mark(z, cut, n_rows, n_columns, bits, counts, threads);
}

void mark_bfloat16(const uint16_t* z, const float* cut, int64_t n_rows, int64_t n_columns, uint64_t* bits,
                   int64_t* counts, int threads) {
    mark(z, cut, n_rows, n_columns, bits, counts, threads);
}

// the marked entries in row-major order; start[row] is where a row's entries go
void gather_float32(const float* z, const uint64_t* bits, const int64_t* start, int64_t n_rows, int64_t n_columns,
                    int64_t* row, int64_t* column, float* value, int threads) {
    gather(z, bits, start, n_rows, n_columns, row, column, value, threads);
}

void gather_bfloat16(const uint16_t* z, const uint64_t* bits, const int64_t* start, int64_t n_rows,
                     int64_t n_columns, int64_t* row, int64_t* column, float* value, int threads) {
    gather(z, bits, start, n_rows, n_columns, row, column, value, threads);
}

// out[order[q]] = <x[token[q]], encoder[latent[r]]> for q in [start[r], start[r + 1])
void scores(const int64_t* latent, const int64_t* start, const int64_t* token, const int64_t* order, int64_t n_rows,
            const float* x, const float* encoder, int64_t width, float* out, int threads) {
#pragma omp parallel for num_threads(threads) schedule(dynamic, 32)
    for (int64_t r = 0; r < n_rows; r++)
        for (int64_t q = start[r]; q < start[r + 1]; q++)
            out[order[q]] = dot(x + token[q] * width, encoder + latent[r] * width, width);
}

// out[t] = sum over q in [start[t], start[t + 1]) of value[q] * decoder[latent[q]], a block of columns at a time
void decode(const int64_t* start, const int64_t* latent, const float* value, int64_t n_tokens, const float* decoder,
            int64_t width, float* out, int threads) {
    const int64_t blocks = (width + BLOCK - 1) / BLOCK;
#pragma omp parallel for collapse(2) num_threads(threads) schedule(static)
    for (int64_t block = 0; block < blocks; block++)
        for (int64_t t = 0; t < n_tokens; t++) {
            const int64_t first = block * BLOCK, n = std::min(BLOCK, width - first);
            weighted_rows(latent + start[t], value + start[t], start[t + 1] - start[t], decoder + first, width,
                          out + t * width + first, n);
        }
}

// per latent j = latent[r]: decoder_gradient[r] = sum f g_t, df = <g_t, decoder_j>, encoder_gradient[r] = sum df x_t,
// bias_gradient[r] = sum df; value is in (token, latent) order
void backward(const int64_t* latent, const int64_t* start, const int64_t* token, const int64_t* order,
              int64_t n_rows, const float* value, const float* x, const float* g, const float* decoder,
              int64_t width, float* encoder_gradient, float* bias_gradient, float* decoder_gradient, int threads) {
#pragma omp parallel for num_threads(threads) schedule(dynamic, 32)
    for (int64_t r = 0; r < n_rows; r++) {
        float* e = encoder_gradient + r * width;
        float* d = decoder_gradient + r * width;
        std::fill(e, e + width, 0.f);
        std::fill(d, d + width, 0.f);
        float bias = 0;
        for (int64_t q = start[r]; q < start[r + 1]; q++) {
            const float* gt = g + token[q] * width;
            const float df = dot(gt, decoder + latent[r] * width, width);
            add_scaled(value[order[q]], gt, d, width);
            add_scaled(df, x + token[q] * width, e, width);
            bias += df;
        }
        bias_gradient[r] = bias;
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
