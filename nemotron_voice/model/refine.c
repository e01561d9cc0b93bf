/* Of a product in int8, the outputs that are the largest, again in fp32.
 *
 * What a joint says is its largest output, and that only: which one it is hangs on the few that are
 * near it. A row's numbers don't depend on other rows: each is computed by one thread, in one order.
 */
#include <math.h>
#include <stdint.h>

#define CANDIDATES 4 /* that are computed again; two of them change no text of the demo checkpoint */
#define STRETCH 64   /* outputs that are looked at together, most of which hold no candidate */
#define PARALLEL 8192 /* outputs from which a second thread pays */

static float dot(const float *x, const float *y, int64_t size)
{
    float sum = 0.0f;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < size; i++)
        sum += x[i] * y[i];
    return sum;
}

/* Puts the largest of outputs [rows, outputs] in their place: x [rows, size] times weights
 * [outputs, size], plus bias [outputs]. */
void refine(float *product, const float *x, const float *weights, const float *bias, int64_t rows,
            int64_t outputs, int64_t size)
{
#pragma omp parallel for schedule(static) if (rows * outputs > PARALLEL)
    for (int64_t row = 0; row < rows; row++) {
        float *own = product + row * outputs;
        float largest[CANDIDATES]; /* from the largest down */
        int64_t where[CANDIDATES], found = 0;
        for (int64_t begin = 0; begin < outputs; begin += STRETCH) {
            int64_t end = begin + STRETCH < outputs ? begin + STRETCH : outputs;
            float most = -INFINITY;
#pragma omp simd reduction(max : most)
            for (int64_t i = begin; i < end; i++)
                most = own[i] > most ? own[i] : most;
            if (found == CANDIDATES && !(most > largest[CANDIDATES - 1]))
                continue;
            for (int64_t i = begin; i < end; i++) {
                if (found == CANDIDATES && !(own[i] > largest[CANDIDATES - 1]))
                    continue;
                int64_t place = found < CANDIDATES ? found++ : CANDIDATES - 1;
                for (; place > 0 && own[i] > largest[place - 1]; place--) {
                    largest[place] = largest[place - 1];
                    where[place] = where[place - 1];
                }
                largest[place] = own[i];
                where[place] = i;
            }
        }
        for (int64_t n = 0; n < found; n++)
            own[where[n]] = dot(x + row * size, weights + where[n] * size, size) + bias[where[n]];
    }
}
