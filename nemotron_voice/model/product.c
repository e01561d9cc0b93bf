/* An int8 matrix product for processors with AVX2 and without VNNI, exact where no two neighbouring
 * weights of one sign are more than 128 together (int8_linear.py sees to it).
 *
 * There vpmaddubsw multiplies activations from 0 to 255 and adds the products of two neighbours in
 * 16 bits, which hold 255 * 128; vpmaddwd adds two such sums in 32. Integers are exact in any order,
 * so a row's product is the same alone and in any batch.
 *
 * Weights lie in panels of 16 outputs, four inputs of each output beside each other, so that a
 * product with few rows reads memory straight through: it is what bounds it. With many rows the
 * multiplications do, in blocks of up to six rows whose 12 vectors of sums stay in registers.
 */
#include <immintrin.h>
#include <stdint.h>
#include <string.h>

#define PANEL 16   /* outputs */
#define GROUP 4    /* inputs of one output, side by side */
#define VECTOR 8   /* outputs of a vector of sums */
#define BLOCK 6    /* rows at once */
#define AHEAD 1024 /* bytes of weights that are asked of memory before they are used */
#define PARALLEL (1 << 18) /* multiplications from which a second thread pays */

#define VECTORS (PANEL / VECTOR)
static inline int64_t whole(int64_t count, int64_t of)
{
    return (count + of - 1) / of * of;
}

/* weights [outputs, inputs] -> panels; those that no weight is for are 0. offsets [outputs, up to a
 * whole panel]: what a sum has too little, as activations have zero_point too much. */
void lay_out(const int8_t *weights, int64_t outputs, int64_t inputs, int zero_point, int8_t *panels,
             int32_t *offsets)
{
    int64_t padded = whole(inputs, GROUP);
#pragma omp parallel for schedule(static)
    for (int64_t output = 0; output < whole(outputs, PANEL); output++) {
        int8_t *into = panels + output / PANEL * PANEL * padded + output % PANEL * GROUP;
        int32_t sum = 0;
        for (int64_t i = 0; i < padded; i++) {
            int8_t weight = output < outputs && i < inputs ? weights[output * inputs + i] : 0;
            into[i / GROUP * PANEL * GROUP + i % GROUP] = weight;
            sum += weight;
        }
        offsets[output] = -zero_point * sum;
    }
}

/* Adds the products of one group of inputs to the sums. */
static inline __m256i add_products(__m256i sums, __m256i activations, const int8_t *weights)
{
    __m256i pairs = _mm256_maddubs_epi16(activations, *(const __m256i_u *)weights);
    return _mm256_add_epi32(sums, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
}

/* `rows` interleaved rows times a panel: a number that the compiler knows, so that sums are registers.
 * `ahead` is asked of memory as the panel is read, `step` bytes for each group of inputs. */
static inline __attribute__((always_inline)) void
multiply_block(int rows, const uint8_t *activations, int64_t groups, const int8_t *panel,
               const int8_t *ahead, int64_t step, const int32_t *offsets, const float *scales,
               float *out, int64_t outputs, int64_t wanted)
{
    __m256i sums[BLOCK][VECTORS];
    for (int row = 0; row < rows; row++)
        for (int v = 0; v < VECTORS; v++)
            sums[row][v] = *(const __m256i_u *)(offsets + v * VECTOR);
#pragma GCC unroll 2
    for (int64_t i = 0; i < groups; i++) {
        _mm_prefetch(ahead, _MM_HINT_T1);
        ahead += step;
#pragma GCC unroll 6
        for (int row = 0; row < rows; row++) {
            int32_t group;
            memcpy(&group, activations + row * GROUP, GROUP);
#pragma GCC unroll 2
            for (int v = 0; v < VECTORS; v++)
                sums[row][v] = add_products(sums[row][v], _mm256_set1_epi32(group),
                                            panel + v * VECTOR * GROUP);
        }
        activations += rows * GROUP;
        panel += PANEL * GROUP;
    }
    for (int row = 0; row < rows; row++) {
        float scaled[PANEL];
        float *into = wanted == PANEL ? out + row * outputs : scaled;
        for (int v = 0; v < VECTORS; v++)
            _mm256_storeu_ps(into + v * VECTOR, _mm256_mul_ps(_mm256_cvtepi32_ps(sums[row][v]),
                                                              _mm256_loadu_ps(scales + v * VECTOR)));
        if (wanted < PANEL)
            memcpy(out + row * outputs, scaled, wanted * sizeof(float));
    }
}

/* Rows [count, inputs] of a block, beside each other group by group: [groups, count, GROUP]. */
static void interleave(const uint8_t *rows, int64_t count, int64_t inputs, uint8_t *out)
{
    for (int64_t row = 0; row < count; row++) {
        const uint8_t *from = rows + row * inputs;
        uint8_t *into = out + row * GROUP;
        int64_t i = 0;
        for (; i + GROUP <= inputs; i += GROUP, into += count * GROUP)
            memcpy(into, from + i, GROUP);
        if (i < inputs) {
            memset(into, 0, GROUP);
            memcpy(into, from + i, inputs - i);
        }
    }
}

/* activations [rows, inputs] times panels: sums times their output's
 * scale [outputs, up to a whole panel], to out [rows, outputs]. `interleaved` is overwritten: as
 * many bytes as activations with inputs up to a whole group. */
void multiply(const uint8_t *activations, int64_t rows, int64_t inputs, const int8_t *panels,
              const int32_t *offsets, const float *scales, int64_t outputs, uint8_t *interleaved,
              float *out)
{
    int64_t blocks = (rows + BLOCK - 1) / BLOCK; /* of as even sizes as can be */
    int64_t padded = whole(inputs, GROUP);
#pragma omp parallel if (rows * inputs * outputs > PARALLEL)
    {
#pragma omp for schedule(static)
        for (int64_t block = 0; block < blocks; block++) {
            int64_t row = rows * block / blocks, count = rows * (block + 1) / blocks - row;
            interleave(activations + row * inputs, count, inputs, interleaved + row * padded);
        }
#pragma omp for schedule(static)
        for (int64_t at = 0; at < outputs; at += PANEL) {
            const int8_t *panel = panels + at * padded;
            int64_t wanted = outputs - at < PANEL ? outputs - at : PANEL;
            for (int64_t block = 0; block < blocks; block++) {
                int64_t row = rows * block / blocks, count = rows * (block + 1) / blocks - row;
                /* One block waits for memory anyway. Of several, the first would, while the others
                 * multiply: so each asks for its share of the next panel. */
                const int8_t *ahead = panel + AHEAD;
                if (blocks > 1)
                    ahead = panel + padded * PANEL * (blocks + block) / blocks;
#define CASE(n)                                                                                    \
    case n:                                                                                        \
        multiply_block(n, interleaved + row * padded, padded / GROUP, panel, ahead,                \
                       PANEL * GROUP / blocks, offsets + at, scales + at,                          \
                       out + row * outputs + at, outputs, wanted);                                 \
        break;
                switch (count) {
                    CASE(1) CASE(2) CASE(3) CASE(4) CASE(5) CASE(6)
                }
            }
        }
    }
}
