/* The causal x8 subsampling (subsampling.py) in fp32, on a CPU: row by row, frame by frame, in maps
 * that stay in the processor's caches. PyTorch writes and reads each stage's maps of all rows, which
 * is tens of megabytes of memory that it asks of the system each time.
 *
 * Three stages of stride 2. Each convolves two new frames of its input and the one before them;
 * in frequency there are 2 zeros before and 1 after. Channels lie beside each other.
 *
 * No row's numbers depend on another's: each is computed by one thread, in one order.
 */
#include <immintrin.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define BEFORE 2 /* zeros in frequency */
#define AFTER 1
#define TAPS 3 /* of a kernel, in time and in frequency */
#define STAGES 2 /* after the first */

#define LANES 8
#define PANEL 16 /* outputs of a product; channels are a multiple of it */
#define VECTORS (PANEL / LANES)
#define BLOCK 6 /* places at once, whose sums stay in registers */

typedef float lanes __attribute__((vector_size(32), aligned(4), may_alias));

struct stage {
    const float *depthwise, *depthwise_bias; /* [TAPS, TAPS, channels], [channels] */
    const float *pointwise, *pointwise_bias; /* [channels / PANEL, channels, PANEL], [channels] */
};

struct subsampling {
    int64_t bins, channels; /* of mel frames; of maps */
    const float *first, *first_bias; /* [TAPS, TAPS, channels], [channels] */
    struct stage stages[STAGES];
};

static inline int64_t halved(int64_t bins)
{
    return (bins + BEFORE + AFTER - TAPS) / 2 + 1;
}

static inline lanes at(const float *x)
{
    return *(const lanes *)x;
}

static inline lanes relu(lanes x)
{
    return (lanes)_mm256_max_ps(_mm256_setzero_ps(), (__m256)x); /* of NaN it is NaN */
}

/* Three mel frames, padded, into a frame of the first map [bins, channels]. */
static void convolve(const float *const *mel, const float *taps, const float *bias, int64_t bins,
                     int64_t channels, float *out)
{
    for (int64_t c = 0; c < channels; c += LANES) {
        lanes weights[TAPS][TAPS];
        for (int i = 0; i < TAPS; i++)
            for (int j = 0; j < TAPS; j++)
                weights[i][j] = at(taps + (i * TAPS + j) * channels + c);
        for (int64_t bin = 0; bin < bins; bin++) {
            lanes sum = at(bias + c);
            for (int i = 0; i < TAPS; i++)
                for (int j = 0; j < TAPS; j++)
                    sum += mel[i][2 * bin + j] * weights[i][j];
            *(lanes *)(out + bin * channels + c) = relu(sum);
        }
    }
}

/* Three frames of a map, padded, each channel for itself: [bins, channels]. */
static void convolve_depthwise(const float *const *frames, const float *taps, const float *bias,
                               int64_t bins, int64_t channels, float *out)
{
    for (int64_t bin = 0; bin < bins; bin++)
        for (int64_t c = 0; c < channels; c += LANES) {
            lanes sum = at(bias + c);
            for (int i = 0; i < TAPS; i++)
                for (int j = 0; j < TAPS; j++)
                    sum += at(frames[i] + (2 * bin + j) * channels + c) *
                           at(taps + (i * TAPS + j) * channels + c);
            *(lanes *)(out + bin * channels + c) = sum;
        }
}

/* `places` of x [places, channels] times a panel: a number that the compiler knows. */
static inline __attribute__((always_inline)) void
multiply_block(int places, const float *x, const float *panel, const float *bias, int64_t channels,
               float *out)
{
    lanes sums[BLOCK][VECTORS];
    for (int place = 0; place < places; place++)
        for (int v = 0; v < VECTORS; v++)
            sums[place][v] = at(bias + v * LANES);
    for (int64_t i = 0; i < channels; i++)
#pragma GCC unroll 6
        for (int place = 0; place < places; place++)
#pragma GCC unroll 2
            for (int v = 0; v < VECTORS; v++)
                sums[place][v] += x[place * channels + i] * at(panel + i * PANEL + v * LANES);
    for (int place = 0; place < places; place++)
        for (int v = 0; v < VECTORS; v++)
            *(lanes *)(out + place * channels + v * LANES) = relu(sums[place][v]);
}

/* Mixes channels: x [places, channels] -> [places, channels]. */
static void mix(const float *x, int64_t places, const struct stage *stage, int64_t channels,
                float *out)
{
    int64_t blocks = (places + BLOCK - 1) / BLOCK; /* of as even sizes as can be */
    for (int64_t c = 0; c < channels; c += PANEL)
        for (int64_t block = 0; block < blocks; block++) {
            int64_t place = places * block / blocks, count = places * (block + 1) / blocks - place;
#define CASE(n)                                                                                    \
    case n:                                                                                        \
        multiply_block(n, x + place * channels, stage->pointwise + c * channels,                   \
                       stage->pointwise_bias + c, channels, out + place * channels + c);           \
        break;
            switch (count) {
                CASE(1) CASE(2) CASE(3) CASE(4) CASE(5) CASE(6)
            }
        }
}

/* [bins, channels] -> [channels, bins], or the other way round. */
static void transpose(const float *x, int64_t rows, int64_t columns, float *out)
{
    for (int64_t row = 0; row < rows; row++)
        for (int64_t column = 0; column < columns; column++)
            out[column * rows + row] = x[row * columns + column];
}

/* Floats that `subsample_row` needs besides: 0.4 MB in the real size, which a thread's stack may not
 * have. */
static size_t scratch_size(const struct subsampling *of, int64_t chunk)
{
    int64_t first = halved(of->bins), second = halved(first), third = halved(second);
    int64_t between = BEFORE + AFTER;
    return (1 + 8 * chunk) * (of->bins + between) +
           of->channels * (TAPS * (first + second + 2 * between) + second + third);
}

/* One row. mel [8 chunk, bins]; last_mel [bins] and the last frames of the maps [channels, bins]
 * come before; new_maps [channels, bins] are those before the next chunk; out [chunk, channels *
 * bins of the last stage]. Where a stream begins, what lies before its first frame is zero. */
static void subsample_row(const struct subsampling *of, const float *mel, const float *last_mel,
                          const float *const *maps, int begins, int64_t chunk,
                          float *const *new_maps, float *out, float *scratch)
{
    int64_t channels = of->channels, bins[1 + STAGES + 1];
    bins[0] = of->bins;
    for (int stage = 0; stage <= STAGES; stage++)
        bins[stage + 1] = halved(bins[stage]);

    int64_t wide = BEFORE + bins[0] + AFTER;
    float *padded = scratch;
    scratch += (1 + 8 * chunk) * wide;
    memset(padded, 0, (1 + 8 * chunk) * wide * sizeof(float));
    for (int64_t t = begins ? 8 : 0; t <= 8 * chunk; t++)
        memcpy(padded + t * wide + BEFORE, t ? mel + (t - 1) * bins[0] : last_mel,
               bins[0] * sizeof(float));

    /* Of the maps that a stage reads, the latest three frames: frame t in place t modulo 3. */
    int64_t sizes[STAGES];
    for (int stage = 0; stage < STAGES; stage++)
        sizes[stage] = (BEFORE + bins[stage + 1] + AFTER) * channels;
    float *rings[STAGES];
    for (int stage = 0; stage < STAGES; stage++) {
        rings[stage] = scratch;
        scratch += TAPS * sizes[stage];
        memset(rings[stage], 0, TAPS * sizes[stage] * sizeof(float));
        transpose(maps[stage], channels, bins[stage + 1], rings[stage] + BEFORE * channels);
    }
#define FRAME(stage, t) (rings[stage] + (t) % TAPS * sizes[stage])

    float *mixed = scratch, *last = mixed + bins[2] * channels;
    for (int64_t frame = 0; frame < chunk; frame++) {
        for (int64_t second = 2 * frame; second < 2 * frame + 2; second++) {
            for (int64_t t = 2 * second; t < 2 * second + 2; t++) {
                float *into = FRAME(0, t + 1) + BEFORE * channels;
                const float *seen = padded + 2 * t * wide;
                if (begins && t < 3)
                    memset(into, 0, bins[1] * channels * sizeof(float));
                else
                    convolve((const float *[]){seen, seen + wide, seen + 2 * wide}, of->first,
                             of->first_bias, bins[1], channels, into);
            }
            float *into = FRAME(1, second + 1) + BEFORE * channels;
            if (begins && second < 1) {
                memset(into, 0, bins[2] * channels * sizeof(float));
                continue;
            }
            convolve_depthwise((const float *[]){FRAME(0, 2 * second), FRAME(0, 2 * second + 1),
                                                 FRAME(0, 2 * second + 2)},
                               of->stages[0].depthwise, of->stages[0].depthwise_bias, bins[2],
                               channels, mixed);
            mix(mixed, bins[2], &of->stages[0], channels, into);
        }
        convolve_depthwise((const float *[]){FRAME(1, 2 * frame), FRAME(1, 2 * frame + 1),
                                             FRAME(1, 2 * frame + 2)},
                           of->stages[1].depthwise, of->stages[1].depthwise_bias, bins[3], channels,
                           mixed);
        mix(mixed, bins[3], &of->stages[1], channels, last);
        transpose(last, bins[3], channels, out + frame * channels * bins[3]);
    }
    for (int stage = 0; stage < STAGES; stage++)
        transpose(FRAME(stage, (4 >> stage) * chunk) + BEFORE * channels, bins[stage + 1], channels,
                  new_maps[stage]);
}

/* A chunk of each row: mel [rows, 8 chunk, bins], last_mel [rows, bins], first_maps and second_maps
 * [rows, channels, their bins], begins [rows]; out [rows, chunk, channels * bins of the last]. */
void subsample(const struct subsampling *of, const float *mel, const float *last_mel,
               const float *first_maps, const float *second_maps, const uint8_t *begins,
               int64_t rows, int64_t chunk, float *new_first_maps, float *new_second_maps,
               float *out)
{
    int64_t first = halved(of->bins), second = halved(first);
    int64_t size = halved(second) * of->channels;
    first *= of->channels;
    second *= of->channels;
#pragma omp parallel if (rows > 1)
    {
        float *scratch = malloc(scratch_size(of, chunk) * sizeof(float));
#pragma omp for schedule(dynamic)
        for (int64_t row = 0; row < rows; row++)
            subsample_row(of, mel + row * 8 * chunk * of->bins, last_mel + row * of->bins,
                          (const float *[]){first_maps + row * first, second_maps + row * second},
                          begins[row], chunk,
                          (float *[]){new_first_maps + row * first,
                                      new_second_maps + row * second},
                          out + row * chunk * size, scratch);
        free(scratch);
    }
}
