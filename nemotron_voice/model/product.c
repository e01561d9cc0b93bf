/* An int8 matrix product for processors with AVX2 and without VNNI, exact where no two neighbouring
 * weights of one sign are more than 128 together (int8_linear.py sees to it).
 *
 * There vpmaddubsw multiplies activations from 0 to 255 and adds the products of two neighbours in
 * 16 bits, which hold 255 * 128; vpmaddwd adds two such sums in 32. Both wait for the same two ports
 * of a core, which are what bounds many rows. Most sums in 16 bits leave room for another, though:
 * two groups of inputs that together stay within 128 share one vpmaddwd. Which go together is found
 * once, as the weights are laid out. Integers are exact in any order, so a row's product is the same
 * alone and in any batch.
 *
 * Weights lie in panels of 16 outputs, four inputs of each output beside each other, so that a
 * product with few rows reads memory straight through: it is what bounds it. Many rows are taken in
 * blocks of up to four, whose 8 vectors of sums stay in registers beside 4 of weights.
 */
#include <immintrin.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define PANEL 16   /* outputs */
#define GROUP 4    /* inputs of one output, side by side */
#define SEGMENT 64 /* groups among which those are found that go together */
#define VECTOR 8   /* outputs of a vector of sums */
#define BLOCK 4    /* rows at once */
#define FEW 6      /* rows that are one block, as they wait for memory; 5 and 6 without couples */
#define LINE 64    /* bytes that memory gives at once: those of a group */
#define AHEAD 1024 /* bytes of weights that are asked of memory before they are used */
#define PARALLEL (1 << 18) /* multiplications from which a second thread pays */

#define VECTORS (PANEL / VECTOR)
#define LANES (PANEL * GROUP / 2) /* sums of two products */
#define MOST 128                  /* weights of one sign in such a sum: 255 * 128 < 2^15 */

/* A matrix as it is multiplied; kernels.py has the same. */
struct matrix {
    int64_t outputs, inputs;
    int8_t *weights;  /* [panel, group in the panel's order, PANEL, GROUP]; missing ones are 0 */
    uint16_t *order;  /* [panel, group]: which each is; couples that go together first */
    int16_t *couples; /* [panel]: how many */
    int32_t *offsets; /* [output of whole panels]: what a sum has too little, by the zero point */
    float *scales;    /* the same, of a sum */
};

static inline int64_t ceil_div(int64_t count, int64_t size)
{
    return (count + size - 1) / size;
}

static inline int64_t least(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

/* The weights of one sign that each lane of a group adds: positive ones, then negative ones. */
static void add_up(const int8_t *weights, uint8_t *sums)
{
    for (int lane = 0; lane < LANES; lane++) {
        int a = weights[2 * lane], b = weights[2 * lane + 1];
        sums[lane] = (a > 0 ? a : 0) + (b > 0 ? b : 0);
        sums[LANES + lane] = (a < 0 ? -a : 0) + (b < 0 ? -b : 0);
    }
}

/* Whether a group's sums fit into the room that another's leave. */
static inline int fit(const uint8_t *sums, const uint8_t *room)
{
    const __m256i *one = (const __m256i *)sums, *other = (const __m256i *)room;
    __m256i over = _mm256_or_si256(_mm256_subs_epu8(one[0], other[0]),
                                   _mm256_subs_epu8(one[1], other[1]));
    return _mm256_testz_si256(over, over);
}

/* Finds couples of a segment's groups: of each, the other, or itself. Who fits fewest chooses first,
 * of those it fits who fits fewest, which leaves few over. */
static void couple_segment(int8_t weights[][PANEL * GROUP], int groups, uint8_t *other)
{
    __attribute__((aligned(32))) uint8_t sums[SEGMENT][2 * LANES];
    uint64_t fits[SEGMENT] = {0}, left = 0; /* a bit for each group */
    uint8_t begins[SEGMENT + 1] = {0}, ranked[SEGMENT];
    for (int a = 0; a < groups; a++) {
        __attribute__((aligned(32))) uint8_t room[2 * LANES];
        add_up(weights[a], sums[a]);
        for (int lane = 0; lane < 2 * LANES; lane++)
            room[lane] = MOST - sums[a][lane];
        other[a] = a;
        left |= 1ull << a;
        for (int b = 0; b < a; b++) {
            uint64_t both = fit(sums[b], room);
            fits[a] |= both << b;
            fits[b] |= both << a;
        }
    }
    for (int a = 0; a < groups; a++) /* by how many each fits */
        begins[__builtin_popcountll(fits[a]) + 1]++;
    for (int count = 1; count < groups; count++)
        begins[count] += begins[count - 1];
    for (int a = 0; a < groups; a++)
        ranked[begins[__builtin_popcountll(fits[a])]++] = a;
    for (int i = 0; i < groups; i++) {
        int a = ranked[i], rank = i;
        uint64_t with = fits[a] & left;
        if (!(left >> a & 1) || !with)
            continue;
        while (!(with >> ranked[rank] & 1))
            rank++;
        other[a] = ranked[rank];
        other[other[a]] = a;
        left &= ~(1ull << a | 1ull << other[a]);
    }
}

/* Order a panel's groups: couples, by their first, then the others. Returns how many couples. */
static int64_t couple_groups(int8_t weights[][PANEL * GROUP], int64_t groups, uint16_t *order)
{
    int64_t coupled = 0, alone = groups;
    for (int64_t begin = 0; begin < groups; begin += SEGMENT) {
        uint8_t other[SEGMENT];
        int here = least(groups - begin, SEGMENT);
        couple_segment(weights + begin, here, other);
        for (int a = 0; a < here; a++)
            if (other[a] > a) {
                order[coupled++] = begin + a;
                order[coupled++] = begin + other[a];
            } else if (other[a] == a) {
                order[--alone] = begin + a;
            }
    }
    return coupled / 2;
}

/* weights [outputs, inputs] -> a matrix, all but its scales, and sums of each output's weights. */
void lay_out(const int8_t *weights, int zero_point, const struct matrix *into, int32_t *sums)
{
    int64_t inputs = into->inputs, groups = ceil_div(inputs, GROUP);
#pragma omp parallel for schedule(static)
    for (int64_t panel = 0; panel < ceil_div(into->outputs, PANEL); panel++) {
        int64_t outputs = least(into->outputs - panel * PANEL, PANEL);
        int8_t(*plain)[PANEL * GROUP] = calloc(groups, PANEL * GROUP);
        int8_t(*to)[PANEL * GROUP] = (void *)(into->weights + panel * groups * PANEL * GROUP);
        uint16_t *order = into->order + panel * groups;
        int32_t *sum = sums + panel * PANEL;
        memset(sum, 0, PANEL * sizeof(int32_t)); /* also of outputs that aren't there */
        for (int64_t output = 0; output < outputs; output++) {
            const int8_t *from = weights + (panel * PANEL + output) * inputs;
            int32_t total = 0;
            for (int64_t i = 0; i < inputs; i++)
                total += from[i];
            sum[output] = total;
            for (int64_t i = 0; i < inputs / GROUP; i++)
                memcpy(plain[i] + output * GROUP, from + i * GROUP, GROUP);
            if (inputs % GROUP)
                memcpy(plain[groups - 1] + output * GROUP, from + (groups - 1) * GROUP,
                       inputs % GROUP);
        }
        into->couples[panel] = couple_groups(plain, groups, order);
        for (int64_t i = 0; i < groups; i++)
            memcpy(to[i], plain[order[i]], PANEL * GROUP);
        for (int output = 0; output < PANEL; output++)
            into->offsets[panel * PANEL + output] = -zero_point * sum[output];
        free(plain);
    }
}

/* Four inputs of a row, for every output of a vector. */
static inline __m256i repeat(const uint8_t *group)
{
    int32_t four;
    memcpy(&four, group, GROUP);
    return _mm256_set1_epi32(four);
}

/* Adds sums in 16 bits to those in 32. */
static inline __m256i add(__m256i sums, __m256i pairs)
{
    return _mm256_add_epi32(sums, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
}

/* `rows` interleaved rows times a panel: a number that the compiler knows, so that sums are
 * registers. `ahead` is asked of memory as the panel is read, `step` bytes for two groups of inputs. */
static inline __attribute__((always_inline)) void
multiply_block(int rows, const uint8_t *activations, const struct matrix *matrix, int64_t panel,
               const int8_t *ahead, int64_t step, float *out)
{
    int64_t groups = ceil_div(matrix->inputs, GROUP);
    int64_t wanted = least(matrix->outputs - panel * PANEL, PANEL);
    const __m256i_u *weights = (const __m256i_u *)(matrix->weights + panel * groups * PANEL * GROUP);
    const uint16_t *order = matrix->order + panel * groups;
    int64_t coupled = rows > BLOCK ? 0 : 2 * matrix->couples[panel];
    __m256i sums[FEW][VECTORS];
    for (int row = 0; row < rows; row++)
        for (int v = 0; v < VECTORS; v++)
            sums[row][v] = *(const __m256i_u *)(matrix->offsets + panel * PANEL + v * VECTOR);
    for (int64_t i = 0; i < coupled; i += 2) {
        const uint8_t *a = activations + (size_t)order[i] * rows * GROUP;
        const uint8_t *b = activations + (size_t)order[i + 1] * rows * GROUP;
        _mm_prefetch(ahead, _MM_HINT_T1);
        if (step > LINE)
            _mm_prefetch(ahead + LINE, _MM_HINT_T1);
        ahead += step;
        _mm_prefetch(activations + (SEGMENT + i) * rows * GROUP, _MM_HINT_T0);
        __m256i of_a[VECTORS], of_b[VECTORS];
        for (int v = 0; v < VECTORS; v++) {
            of_a[v] = weights[v];
            of_b[v] = weights[VECTORS + v];
        }
#pragma GCC unroll 6
        for (int row = 0; row < rows; row++) {
            __m256i from_a = repeat(a + row * GROUP), from_b = repeat(b + row * GROUP);
            for (int v = 0; v < VECTORS; v++)
                sums[row][v] = add(sums[row][v],
                                   _mm256_add_epi16(_mm256_maddubs_epi16(from_a, of_a[v]),
                                                    _mm256_maddubs_epi16(from_b, of_b[v])));
        }
        weights += 2 * VECTORS;
    }
    for (int64_t i = coupled; i < groups; i++) {
        const uint8_t *group = activations + (size_t)order[i] * rows * GROUP;
        _mm_prefetch(ahead, _MM_HINT_T1);
        ahead += step / 2;
#pragma GCC unroll 6
        for (int row = 0; row < rows; row++)
            for (int v = 0; v < VECTORS; v++)
                sums[row][v] = add(sums[row][v],
                                   _mm256_maddubs_epi16(repeat(group + row * GROUP), weights[v]));
        weights += VECTORS;
    }
    for (int row = 0; row < rows; row++) {
        float scaled[PANEL];
        float *into = wanted == PANEL ? out + row * matrix->outputs : scaled;
        for (int v = 0; v < VECTORS; v++)
            _mm256_storeu_ps(into + v * VECTOR,
                             _mm256_mul_ps(_mm256_cvtepi32_ps(sums[row][v]),
                                           _mm256_loadu_ps(matrix->scales + panel * PANEL +
                                                           v * VECTOR)));
        if (wanted < PANEL)
            memcpy(out + row * matrix->outputs, scaled, wanted * sizeof(float));
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

/* activations [rows, inputs] times a matrix: sums times their output's scale, to out [rows, outputs].
 * `interleaved` is overwritten: as many bytes as activations with inputs up to a whole group. */
void multiply(const uint8_t *activations, int64_t rows, const struct matrix *matrix,
              uint8_t *interleaved, float *out)
{
    int64_t blocks = rows <= FEW ? 1 : ceil_div(rows, BLOCK); /* of as even sizes as can be */
    int64_t inputs = matrix->inputs, groups = ceil_div(inputs, GROUP);
#pragma omp parallel if (rows * inputs * matrix->outputs > PARALLEL)
    {
#pragma omp for schedule(static)
        for (int64_t block = 0; block < blocks; block++) {
            int64_t row = rows * block / blocks, count = rows * (block + 1) / blocks - row;
            interleave(activations + row * inputs, count, inputs, interleaved + row * groups * GROUP);
        }
#pragma omp for schedule(static)
        for (int64_t panel = 0; panel < ceil_div(matrix->outputs, PANEL); panel++) {
            const int8_t *weights = matrix->weights + panel * groups * LINE;
            for (int64_t block = 0; block < blocks; block++) {
                int64_t row = rows * block / blocks, count = rows * (block + 1) / blocks - row;
                /* One block waits for memory anyway. Of several, the first would, while the others
                 * multiply: so each asks for its share of the next panel. */
                const int8_t *ahead = weights + AHEAD;
                if (blocks > 1)
                    ahead = weights + (groups + groups * block / blocks) * LINE;
#define CASE(n)                                                                                    \
    case n:                                                                                        \
        multiply_block(n, interleaved + row * groups * GROUP, matrix, panel, ahead,                \
                       2 * LINE / blocks, out + row * matrix->outputs + panel * PANEL);            \
        break;
                switch (count) {
                    CASE(1) CASE(2) CASE(3) CASE(4) CASE(5) CASE(6)
                }
            }
        }
    }
}
