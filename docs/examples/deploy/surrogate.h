/* A surrogate as a C function: open it once, call it as often as you like. Every function returns 0 where all is well;
 * else surrogate_error() is one line that says what was wrong. */
#ifndef SURROGATE_H
#define SURROGATE_H

#include <stdint.h>

typedef struct surrogate surrogate;

/* Read an ONNX file that has one input (rows, n_in) and one output (rows, n_out), both float32.
 * library: path of libonnxruntime.so, or its name where the loader finds it; threads: 0 takes all cores. */
int surrogate_open(surrogate **s, const char *library, const char *file, int threads);

/* Compute rows of outputs from rows of inputs, each row contiguous (in Fortran: x(n_in, rows), y(n_out, rows)).
 * May be called from several threads at once. */
int surrogate_call(surrogate *s, int64_t rows, int64_t n_in, const float *x, int64_t n_out, float *y);

void surrogate_close(surrogate *s);

const char *surrogate_error(void);

#endif
