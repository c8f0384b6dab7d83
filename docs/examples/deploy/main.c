/* Rows of numbers in, rows of numbers out:  ./flux libonnxruntime.so cfd.onnx 20 5 < inputs.txt */
#include <stdio.h>
#include <stdlib.h>

#include "surrogate.h"

int main(int argc, char **argv) {
  if (argc != 5) {
    fprintf(stderr, "usage: %s LIBONNXRUNTIME MODEL.onnx N_IN N_OUT < INPUTS\n", argv[0]);
    return 2;
  }
  const int64_t n_in = atoll(argv[3]), n_out = atoll(argv[4]);
  size_t count = 0, room = 1024;
  float *x = malloc(room * sizeof *x);
  while (x && scanf("%f", x + count) == 1)
    if (++count == room) x = realloc(x, (room *= 2) * sizeof *x);
  const int64_t rows = n_in > 0 ? (int64_t)count / n_in : 0;
  float *y = n_out > 0 ? malloc(((size_t)rows * (size_t)n_out + 1) * sizeof *y) : NULL;
  surrogate *s = NULL;
  if (!x || !y || rows * n_in != (int64_t)count) {
    fprintf(stderr, "%zu numbers are no rows of %lld\n", count, (long long)n_in);
    return 1;
  }
  if (surrogate_open(&s, argv[1], argv[2], 1) || surrogate_call(s, rows, n_in, x, n_out, y)) {
    fprintf(stderr, "%s\n", surrogate_error());
    surrogate_close(s);
    return 1;
  }
  for (int64_t row = 0; row < rows; row++)
    for (int64_t k = 0; k < n_out; k++) printf("%.9g%c", y[row * n_out + k], k + 1 < n_out ? ' ' : '\n');
  surrogate_close(s);
  free(x);
  free(y);
  return 0;
}
