// Finding entries of a [row, column] matrix. Plain C interface, no PyTorch headers; matrices are row-major.
//
// Entries are first marked, as bits of 64-bit words with their counts per row, then gathered in row-major order.
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <vector>
#ifdef __AVX512F__
#include <immintrin.h>
#endif

namespace {

inline float widen(float value) { return value; }
inline float widen(uint16_t bfloat16) {
    const uint32_t bits = static_cast<uint32_t>(bfloat16) << 16;
    float value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
}

// bit j of the result: z[j] > cut[j]
template <class T>
inline uint64_t compare(const T* z, const float* cut, int64_t n) {
    uint64_t found = 0;
    for (int64_t j = 0; j < n; j++) found |= static_cast<uint64_t>(widen(z[j]) > cut[j]) << j;
    return found;
}

#ifdef __AVX512F__
inline __m512 load_lanes(const float* z) { return _mm512_loadu_ps(z); }
inline __m512 load_lanes(const uint16_t* z) {
    const __m256i narrow = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(z));
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(narrow), 16));
}
#endif

template <class T>
inline uint64_t compare_word(const T* z, const float* cut) {
#ifdef __AVX512F__
    uint64_t found = 0;
    for (int64_t j = 0; j < 64; j += 16)
        found |= static_cast<uint64_t>(
                     _mm512_cmp_ps_mask(load_lanes(z + j), _mm512_loadu_ps(cut + j), _CMP_GT_OQ)) << j;
    return found;
#else
    int any = 0;
    for (int64_t j = 0; j < 64; j++) any |= widen(z[j]) > cut[j];
    return any ? compare(z, cut, 64) : 0;
#endif
}

// marks one row; returns how many entries it marked
template <class T>
int64_t mark_row(const T* z, const float* cut, int64_t n_columns, uint64_t* bits) {
    const int64_t words = (n_columns + 63) / 64, whole = n_columns / 64;
    int64_t count = 0;
    for (int64_t w = 0; w < whole; w++) {
        bits[w] = compare_word(z + 64 * w, cut + 64 * w);
        count += __builtin_popcountll(bits[w]);
    }
    if (whole < words) {
        bits[whole] = compare(z + 64 * whole, cut + 64 * whole, n_columns - 64 * whole);
        count += __builtin_popcountll(bits[whole]);
    }
    return count;
}

template <class T>
void mark(const T* z, const float* cut, int64_t n_rows, int64_t n_columns, uint64_t* bits, int64_t* counts,
          int threads) {
    const int64_t words = (n_columns + 63) / 64;
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t r = 0; r < n_rows; r++) counts[r] = mark_row(z + r * n_columns, cut, n_columns, bits + r * words);
}

inline float from_bits(int32_t bits) {
    float value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
}

// the k-th largest key, bit by bit from the highest; keys are the bits of positive floats, which order like them
int32_t kth_largest(const int32_t* keys, int64_t n, int64_t k) {
    int32_t found = 0;
    for (int bit = 30; bit >= 0; bit--) {
        const int32_t trial = found | (int32_t{1} << bit);
        int32_t count = 0;
        for (int64_t i = 0; i < n; i++) count += keys[i] >= trial;
        if (count >= k) found = trial;
    }
    return found;
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

// bits[row] has bit j set where z[row, j] > cut[j]; counts[row] is their number
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

// marks the k largest positive z[row, j] * scale[j] of every row; of equals the lowest column
void mark_largest(const float* z, const float* scale, int64_t k, int64_t n_rows, int64_t n_columns, uint64_t* bits,
                  int64_t* counts, int threads) {
    const int64_t words = (n_columns + 63) / 64;
#pragma omp parallel num_threads(threads)
    {
        std::vector<float> scaled(n_columns), cut(n_columns);
        std::vector<int32_t> keys(n_columns);
#pragma omp for schedule(static)
        for (int64_t r = 0; r < n_rows; r++) {
            int64_t n = 0;
            for (int64_t j = 0; j < n_columns; j++) scaled[j] = z[r * n_columns + j] * scale[j];
            for (int64_t j = 0; j < n_columns; j++) {
                std::memcpy(&keys[n], &scaled[j], sizeof(float));
                n += scaled[j] > 0;
            }
            const int32_t smallest = n > k ? kth_largest(keys.data(), n, k) : 1;
            std::fill(cut.begin(), cut.end(), from_bits(smallest - 1));  // the next smaller float
            uint64_t* out = bits + r * words;
            counts[r] = mark_row(scaled.data(), cut.data(), n_columns, out);
            for (int64_t j = n_columns - 1; counts[r] > k; j--)  // more than one entry equals the smallest
                if (scaled[j] == from_bits(smallest)) out[j / 64] &= ~(uint64_t{1} << (j % 64)), counts[r]--;
        }
    }
}
}
