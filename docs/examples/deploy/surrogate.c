#include "surrogate.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>

#include "ort.h"

enum { API_VERSION = 14 };

struct surrogate {
  void *library;
  const OrtApi *api;
  OrtAllocator *allocator;
  OrtEnv *env;
  OrtSessionOptions *options;
  OrtSession *session;
  OrtMemoryInfo *memory;
  char *input, *output;
};

static _Thread_local char message[512];

const char *surrogate_error(void) { return message; }

static int fail(const char *what, const char *why) {
  snprintf(message, sizeof message, "%s: %s", what, why);
  return 1;
}

/* 0 for success, which onnxruntime says with no status; else its message is kept and the status freed. */
static int failed(const OrtApi *api, OrtStatus *status, const char *what) {
  if (!status) return 0;
  fail(what, api->GetErrorMessage(status));
  api->ReleaseStatus(status);
  return 1;
}

static int load(surrogate *s, const char *library) {
  s->library = dlopen(library, RTLD_NOW | RTLD_LOCAL);
  if (!s->library) return fail("cannot load onnxruntime", dlerror());
  /* ISO C has no cast from an object pointer to a function pointer; POSIX wants it done like this. */
  const OrtApiBase *(*base)(void);
  *(void **)&base = dlsym(s->library, "OrtGetApiBase");
  if (!base) return fail(library, "not onnxruntime, it has no OrtGetApiBase");
  s->api = base()->GetApi(API_VERSION);
  return s->api ? 0 : fail(library, "too old, version 1.14 or newer is needed");
}

static int start(surrogate *s, const char *file, int threads) {
  const OrtApi *api = s->api;
  size_t inputs = 0, outputs = 0;
  if (failed(api, api->CreateEnv(ORT_LOGGING_LEVEL_WARNING, "surrogate", &s->env), file) ||
      failed(api, api->CreateSessionOptions(&s->options), file) ||
      failed(api, api->SetIntraOpNumThreads(s->options, threads), file) ||
      failed(api, api->CreateSession(s->env, file, s->options, &s->session), file) ||
      failed(api, api->SessionGetInputCount(s->session, &inputs), file) ||
      failed(api, api->SessionGetOutputCount(s->session, &outputs), file))
    return 1;
  if (inputs != 1 || outputs != 1) return fail(file, "expected one input and one output");
  return failed(api, api->GetAllocatorWithDefaultOptions(&s->allocator), file) ||
         failed(api, api->SessionGetInputName(s->session, 0, s->allocator, &s->input), file) ||
         failed(api, api->SessionGetOutputName(s->session, 0, s->allocator, &s->output), file) ||
         failed(api, api->CreateCpuMemoryInfo(OrtArenaAllocator, OrtMemTypeDefault, &s->memory), file);
}

int surrogate_open(surrogate **s, const char *library, const char *file, int threads) {
  *s = calloc(1, sizeof **s);
  if (!*s) return fail(file, "out of memory");
  if (load(*s, library) || start(*s, file, threads)) {
    surrogate_close(*s);
    *s = NULL;
    return 1;
  }
  return 0;
}

/* The caller's own memory as a tensor: nothing is copied, neither in nor out. */
static int wrap(surrogate *s, const float *data, int64_t rows, int64_t columns, OrtValue **value) {
  const int64_t shape[2] = {rows, columns};
  const size_t bytes = (size_t)rows * (size_t)columns * sizeof *data;
  return failed(s->api,
                s->api->CreateTensorWithDataAsOrtValue(s->memory, (void *)data, bytes, shape, 2,
                                                       ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT, value),
                "surrogate_call");
}

int surrogate_call(surrogate *s, int64_t rows, int64_t n_in, const float *x, int64_t n_out, float *y) {
  OrtValue *in = NULL, *out = NULL;
  int bad = wrap(s, x, rows, n_in, &in) || wrap(s, y, rows, n_out, &out);
  if (!bad) {
    const char *input = s->input, *output = s->output;
    const OrtValue *inputs = in;
    bad = failed(s->api, s->api->Run(s->session, NULL, &input, &inputs, 1, &output, 1, &out), "surrogate_call");
  }
  if (in) s->api->ReleaseValue(in);
  if (out) s->api->ReleaseValue(out);
  return bad;
}

void surrogate_close(surrogate *s) {
  if (!s) return;
  const OrtApi *api = s->api;
  if (s->allocator && s->input) (void)!api->AllocatorFree(s->allocator, s->input);
  if (s->allocator && s->output) (void)!api->AllocatorFree(s->allocator, s->output);
  if (s->memory) api->ReleaseMemoryInfo(s->memory);
  if (s->session) api->ReleaseSession(s->session);
  if (s->options) api->ReleaseSessionOptions(s->options);
  if (s->env) api->ReleaseEnv(s->env);
  /* The library stays loaded: its threads may outlive the session. */
  free(s);
}
