/* What an int8 encoder block does between its matrix products: one pass over memory for each gap.
 *
 * PyTorch takes some 170 small operations for it, each a pass of its own. Products are oneDNN's or
 * product.c's (int8_linear.py); blocks.py holds the same arithmetic in PyTorch, which runs where
 * this file isn't built, and which it is tested against.
 *
 * A product comes as sums over rounded activations; times its row's scale, plus a bias, it is what
 * was meant. What goes into the next one is rounded to -127..127 with a scale for each row, the
 * largest of its magnitudes; or, where all are above a floor, to 0..255 with the largest above it.
 * All matrices are fp32 and row-major.
 *
 * No row's numbers depend on another's or on how many there are: each is computed by one thread, in
 * one order. Threads are PyTorch's own team: this is linked with no OpenMP library, so that calls
 * go to the one that PyTorch has loaded.
 */
#include <math.h>
#include <stdint.h>
#include <string.h>

#define PARALLEL 8192        /* elements from which a second thread pays */
#define SMALLEST 1e-12f      /* scale of a row of zeros */
#define NORM_EPSILON 1e-5f

/* Which sources the library was built from; kernels.py compares. */
const char *source(void)
{
    return SOURCE;
}

/* A loop whose turns don't depend on each other, also where it writes what it has read. */
#define EACH(index, count) \
    _Pragma("GCC ivdep") for (int64_t index = 0; index < (count); index++)

/* How the next product's kernel takes its activations. */
enum layout {
    SIGNED,    /* int8 */
    UNSIGNED,  /* uint8, 128 stands for 0 */
    ONE_SIDED, /* uint8, 0 stands for the floor */
};

static inline int32_t bits_of(float x)
{
    union { float number; int32_t bits; } as = {.number = x};
    return as.bits;
}

static inline float number_of(int32_t bits)
{
    union { int32_t bits; float number; } as = {.bits = bits};
    return as.number;
}

/* e^x, of its own size within 4e-7. Cephes' polynomial on -ln(2)/2..ln(2)/2, then a power of two. */
static inline float exponential(float x)
{
    x = x < -87.0f ? -87.0f : x;
    x = x > 88.0f ? 88.0f : x;
    float twos = __builtin_rintf(x * 1.44269504f);
    float rest = x - twos * 0.693147181f;
    float sum = 1.9875691500e-4f;
    sum = sum * rest + 1.3981999507e-3f;
    sum = sum * rest + 8.3334519073e-3f;
    sum = sum * rest + 4.1665795894e-2f;
    sum = sum * rest + 1.6666665459e-1f;
    sum = sum * rest + 5.0000001201e-1f;
    sum = sum * rest * rest + rest + 1.0f;
    return sum * number_of(((int32_t)twos + 127) << 23);
}

static inline float sigmoid(float x)
{
    return 1.0f / (1.0f + exponential(-x));
}

static inline float meant(const float *product, const float *bias, float scale, int64_t at)
{
    return product[at] * scale + bias[at];
}

/* Rounds x [size] half to even; returns its scale. A row with a NaN or an infinity has a scale that
 * is none either: it stays broken, though its values are numbers. Without ONE_SIDED the floor
 * is 0. */
static float round_row(const float *x, int64_t size, enum layout layout, float floor, void *out,
                       int64_t row)
{
    int32_t most = 0; /* as bits, magnitudes sort as they do as numbers, and NaN comes last */
#pragma omp simd reduction(max : most)
    for (int64_t i = 0; i < size; i++) {
        int32_t magnitude = bits_of(x[i] - floor) & 0x7fffffff;
        most = magnitude > most ? magnitude : most;
    }
    float loudest = number_of(most);
    loudest = loudest < SMALLEST ? SMALLEST : loudest;
    float factor = (layout == ONE_SIDED ? 255.0f : 127.0f) / loudest;
    int sound = isfinite(loudest);
    if (layout == SIGNED) {
        int8_t *rounded = (int8_t *)out + row * size;
        EACH(i, size)
            rounded[i] = sound ? (int8_t)__builtin_rintf(x[i] * factor) : 0;
    } else {
        uint8_t *rounded = (uint8_t *)out + row * size;
        int32_t zero = layout == ONE_SIDED ? 0 : 128;
        EACH(i, size)
            rounded[i] =
                sound ? (uint8_t)((int32_t)__builtin_rintf((x[i] - floor) * factor) + zero) : zero;
    }
    return loudest;
}

static void norm_row(const float *x, const float *gain, const float *bias, int64_t size, float *out)
{
    float sum = 0.0f, squares = 0.0f;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < size; i++)
        sum += x[i];
    float mean = sum / (float)size;
#pragma omp simd reduction(+ : squares)
    for (int64_t i = 0; i < size; i++)
        squares += (x[i] - mean) * (x[i] - mean);
    float rate = 1.0f / sqrtf(squares / (float)size + NORM_EPSILON);
    EACH(i, size)
        out[i] = (x[i] - mean) * rate * gain[i] + bias[i];
}

/* Rounds x [rows, size]. */
void round_rows(const float *x, int64_t rows, int64_t size, int layout, float floor, void *out,
                float *scales)
{
#pragma omp parallel for schedule(static) if (rows * size > PARALLEL)
    for (int64_t row = 0; row < rows; row++)
        scales[row] = round_row(x + row * size, size, layout, floor, out, row);
}

/* What a product meant, in its place: [rows, size]. */
void rescale_rows(float *product, const float *scales, const float *bias, int64_t rows, int64_t size)
{
#pragma omp parallel for schedule(static) if (rows * size > PARALLEL)
    for (int64_t row = 0; row < rows; row++) {
        float *own = product + row * size;
        EACH(i, size)
            own[i] = meant(own, bias, scales[row], i);
    }
}

/* Adds a product to the residual stream x [rows, size] (unless it is NULL), normalises x itself if
 * there is a last gain, and rounds the norm of x for the next product if there is a gain. */
void add_norm_round(float *x, const float *product, const float *scales, const float *product_bias,
                    const float *last_gain, const float *last_bias, const float *gain,
                    const float *bias, int64_t rows, int64_t size, int layout, void *out,
                    float *new_scales)
{
#pragma omp parallel for schedule(static) if (rows * size > PARALLEL)
    for (int64_t row = 0; row < rows; row++) {
        float *own = x + row * size;
        float normed[size];
        if (product)
            EACH(i, size)
                own[i] += meant(product + row * size, product_bias, scales[row], i);
        if (last_gain)
            norm_row(own, last_gain, last_bias, size, own);
        if (gain) {
            norm_row(own, gain, bias, size, normed);
            new_scales[row] = round_row(normed, size, layout, 0.0f, out, row);
        }
    }
}

/* SiLU of a product [rows, size], rounded for the next; the product is overwritten. */
void silu_round(float *product, const float *scales, const float *bias, int64_t rows, int64_t size,
                int layout, float floor, void *out, float *new_scales)
{
#pragma omp parallel for schedule(static) if (rows * size > PARALLEL)
    for (int64_t row = 0; row < rows; row++) {
        float *own = product + row * size;
        EACH(i, size) {
            float x = meant(own, bias, scales[row], i);
            own[i] = x * sigmoid(x);
        }
        new_scales[row] = round_row(own, size, layout, floor, out, row);
    }
}

typedef float lanes __attribute__((vector_size(32), aligned(4), may_alias));
#define LANES 8

static inline lanes at(const float *x, int64_t i)
{
    return *(const lanes *)(x + i);
}

#define KEYS 4 /* whose scores are computed at once: one chain of sums would wait for itself */

/* scores[k] = content . keys[k] + position . distances[k], of vectors [size]. */
static inline void score(const float *content, const float *position, const float *const *keys,
                         const float *const *distances, int64_t size, float *scores)
{
    typedef int32_t indices __attribute__((vector_size(32)));
    lanes near[KEYS] = {{0}, {0}, {0}, {0}}, far[KEYS] = {{0}, {0}, {0}, {0}};
    for (int64_t i = 0; i < size; i += LANES)
#pragma GCC unroll 4
        for (int k = 0; k < KEYS; k++) {
            near[k] += at(content, i) * at(keys[k], i);
            far[k] += at(position, i) * at(distances[k], i);
        }
    /* Sums over lanes, of the four side by side. */
    const indices even = {0, 8, 2, 10, 4, 12, 6, 14}, odd = {1, 9, 3, 11, 5, 13, 7, 15};
    const indices first = {0, 1, 8, 9, 4, 5, 12, 13}, second = {2, 3, 10, 11, 6, 7, 14, 15};
    lanes a = near[0] + far[0], b = near[1] + far[1], c = near[2] + far[2], d = near[3] + far[3];
    a = __builtin_shuffle(a, b, even) + __builtin_shuffle(a, b, odd);
    c = __builtin_shuffle(c, d, even) + __builtin_shuffle(c, d, odd);
    a = __builtin_shuffle(a, c, first) + __builtin_shuffle(a, c, second);
    for (int k = 0; k < KEYS; k++)
        scores[k] = a[k] + a[k + KEYS];
}

/* exp(scale (x - the largest)) in place; returns their sum. */
static inline float softmax(float *x, int64_t count, float scale)
{
    float most = -INFINITY, total = 0.0f;
    for (int64_t i = 0; i < count; i++)
        most = x[i] > most ? x[i] : most;
#pragma omp simd reduction(+ : total)
    for (int64_t i = 0; i < count; i++) {
        x[i] = exponential((x[i] - most) * scale);
        total += x[i];
    }
    return total;
}

#define BLOCK 8 /* vectors that are summed side by side */

/* Elements from the n-th on, BLOCK * LANES of them or as many as there are, of the mean of values
 * [size] by their weights. */
static inline void weigh(const float *weights, const float *const *values, int64_t count, int64_t n,
                         int64_t size, float total, float *mean)
{
    if (n + BLOCK * LANES > size) {
        for (; n < size; n += LANES) {
            lanes sum = {0};
            for (int64_t j = 0; j < count; j++)
                sum += weights[j] * at(values[j], n);
            *(lanes *)(mean + n) = sum / total;
        }
        return;
    }
    lanes sums[BLOCK] = {{0}, {0}, {0}, {0}, {0}, {0}, {0}, {0}};
    for (int64_t j = 0; j < count; j++)
#pragma GCC unroll 8
        for (int k = 0; k < BLOCK; k++)
            sums[k] += weights[j] * at(values[j], n + k * LANES);
    for (int k = 0; k < BLOCK; k++)
        *(lanes *)(mean + n + k * LANES) = sums[k] / total;
}

/* Sizes of the attention; head_size is a multiple of LANES. */
struct attention {
    int64_t chunk, heads, head_size, ring, left;
    int64_t farthest; /* frames that the longest chunk looks ahead */
};

/* One head of one stream: writes the chunk's keys and values into its ring, and what it hears.
 * relative [left + 2 farthest + 1, head_size] is of the distances from left + farthest down. */
static void attend(const struct attention *of, const float *product, const float *scales,
                   const float *bias, float *keys, float *values, const float *content_bias,
                   const float *position_bias, const float *relative, int64_t begun, int64_t head,
                   float *heard)
{
    int64_t chunk = of->chunk, size = of->head_size, width = of->heads * size;
    int64_t last = begun + chunk - 1;
    int64_t seen = of->left + chunk <= last + 1 ? of->left + chunk : last + 1;
    int64_t padded = (seen + KEYS - 1) / KEYS * KEYS;
    float by_content[chunk * size], by_position[chunk * size], weights[chunk * padded], totals[chunk];
    const float *key_of[padded], *value_of[padded];
    float root = 1.0f / sqrtf((float)size);
    for (int64_t i = 0; i < chunk; i++) {
        const float *query = product + i * 3 * width + head * size;
        const float *in_bias = bias + head * size;
        float *key = keys + (begun + i) % of->ring * size;
        float *value = values + (begun + i) % of->ring * size;
        EACH(n, size) {
            float asked = meant(query, in_bias, scales[i], n);
            by_content[i * size + n] = asked + content_bias[n];
            by_position[i * size + n] = asked + position_bias[n];
        }
        EACH(n, size) {
            key[n] = meant(query, in_bias, scales[i], width + n);
            value[n] = meant(query, in_bias, scales[i], 2 * width + n);
        }
    }
    for (int64_t j = 0; j < padded; j++) { /* from the oldest on; the last ones stand in for none */
        int64_t place = (last - (j < seen ? seen - 1 - j : 0)) % of->ring;
        key_of[j] = keys + place * size;
        value_of[j] = values + place * size;
    }
    /* All queries beside the same keys, and then the same values: those stay in the first cache. */
    for (int64_t j = 0; j < padded; j += KEYS)
        for (int64_t i = 0; i < chunk; i++) {
            const float *distances[KEYS];
            for (int k = 0; k < KEYS; k++) {
                int64_t nearer = j + k < seen ? seen - (j + k) : 1;
                distances[k] = relative + (of->left + of->farthest + chunk - i - nearer) * size;
            }
            score(by_content + i * size, by_position + i * size, key_of + j, distances, size,
                  weights + i * padded + j);
        }
    for (int64_t i = 0; i < chunk; i++)
        totals[i] = softmax(weights + i * padded, seen, root);
    for (int64_t n = 0; n < size; n += BLOCK * LANES)
        for (int64_t i = 0; i < chunk; i++)
            weigh(weights + i * padded, value_of, seen, n, size, totals[i],
                  heard + i * width + head * size);
}

/* Attention over the rings, with relative positions, rounded for the next product.
 *
 * product: queries, keys and values, [rows * chunk, 3, heads, head_size].
 * keys, values: one block's, [slab, heads, ring, head_size]; row n is slab row slab_rows[n], which
 *     has had begun[n] frames.
 * content_bias, position_bias: [heads, head_size]; relative: [heads, distances, head_size].
 * heard: [rows * chunk, heads * head_size], overwritten.
 */
void attention_round(const struct attention *of, const float *product, const float *scales,
                     const float *bias, float *keys, float *values, const int64_t *slab_rows,
                     const int64_t *begun, const float *content_bias, const float *position_bias,
                     const float *relative, int64_t rows, float *heard, int layout, void *out,
                     float *new_scales)
{
    int64_t chunk = of->chunk, heads = of->heads, width = heads * of->head_size;
    int64_t ring = of->ring * of->head_size;
    int64_t distances = (of->left + 2 * of->farthest + 1) * of->head_size;
#pragma omp parallel if (rows * chunk > 1)
    {
#pragma omp for collapse(2) schedule(static)
        for (int64_t row = 0; row < rows; row++)
            for (int64_t head = 0; head < heads; head++) {
                int64_t at = (slab_rows[row] * heads + head) * ring;
                attend(of, product + row * chunk * 3 * width, scales + row * chunk, bias, keys + at,
                       values + at, content_bias + head * of->head_size,
                       position_bias + head * of->head_size, relative + head * distances, begun[row],
                       head, heard + row * chunk * width);
            }
#pragma omp for schedule(static)
        for (int64_t row = 0; row < rows * chunk; row++)
            new_scales[row] = round_row(heard + row * width, width, layout, 0.0f, out, row);
    }
}

/* GLU, causal depthwise convolution, norm and SiLU of a product, rounded for the next.
 *
 * product: [rows * chunk, 2, size]; taps: [kernel, size], the oldest first.
 * cache: [rows, kernel - 1, size], the inputs before the chunk; becomes those before the next one.
 * gated: [rows, kernel - 1 + chunk, size], overwritten.
 */
void convolution_round(const float *product, const float *scales, const float *product_bias,
                       float *cache, const float *taps, const float *taps_bias, const float *gain,
                       const float *bias, int64_t rows, int64_t chunk, int64_t kernel, int64_t size,
                       float *gated, int layout, float floor, void *out, float *new_scales)
{
    int64_t kept = kernel - 1, frames = kept + chunk;
#pragma omp parallel if (rows * chunk * size > PARALLEL)
    {
#pragma omp for collapse(2) schedule(static)
        for (int64_t row = 0; row < rows; row++)
            for (int64_t frame = 0; frame < frames; frame++) {
                float *into = gated + (row * frames + frame) * size;
                if (frame < kept) {
                    memcpy(into, cache + (row * kept + frame) * size, size * sizeof(float));
                    continue;
                }
                int64_t own = row * chunk + frame - kept;
                const float *from = product + own * 2 * size;
                EACH(i, size)
                    into[i] = meant(from, product_bias, scales[own], i) *
                              sigmoid(meant(from, product_bias, scales[own], size + i));
            }
#pragma omp for collapse(2) schedule(static)
        for (int64_t row = 0; row < rows; row++)
            for (int64_t frame = 0; frame < chunk; frame++) {
                const float *from = gated + (row * frames + frame) * size;
                float mixed[size];
                EACH(i, size)
                    mixed[i] = taps_bias[i];
                for (int64_t tap = 0; tap < kernel; tap++)
                    EACH(i, size)
                        mixed[i] += from[tap * size + i] * taps[tap * size + i];
                norm_row(mixed, gain, bias, size, mixed);
                EACH(i, size)
                    mixed[i] *= sigmoid(mixed[i]);
                int64_t own = row * chunk + frame;
                new_scales[own] = round_row(mixed, size, layout, floor, out, own);
            }
#pragma omp for schedule(static)
        for (int64_t row = 0; row < rows; row++)
            memcpy(cache + row * kept * size, gated + (row * frames + chunk) * size,
                   kept * size * sizeof(float));
    }
}
