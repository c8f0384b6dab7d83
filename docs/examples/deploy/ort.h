/* The part of onnxruntime's C API that surrogate.c needs, for places that have the library and not its header: the
 * Python package ships libonnxruntime.so alone. With -DORT_HEADER the real onnxruntime_c_api.h is used instead.
 *
 * OrtApi is a table of function pointers that only ever grows at its end, so the places below hold for every release
 * that has API version 14 (onnxruntime 1.14, February 2023) or a later one; the functions' meaning is documented at
 * onnxruntime.ai/docs/api/c. _Static_assert guards against a slip in counting the gaps. */
#ifndef ORT_H
#define ORT_H

#ifdef ORT_HEADER
#include <onnxruntime_c_api.h>
#else
#include <stddef.h>
#include <stdint.h>

typedef struct OrtStatus OrtStatus;
typedef struct OrtEnv OrtEnv;
typedef struct OrtSession OrtSession;
typedef struct OrtSessionOptions OrtSessionOptions;
typedef struct OrtRunOptions OrtRunOptions;
typedef struct OrtMemoryInfo OrtMemoryInfo;
typedef struct OrtValue OrtValue;
typedef struct OrtAllocator OrtAllocator;

enum { ORT_LOGGING_LEVEL_WARNING = 2, ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT = 1 };
enum { OrtArenaAllocator = 1, OrtMemTypeDefault = 0 };

typedef struct OrtApi {
  void *gap0[2];
  const char *(*GetErrorMessage)(const OrtStatus *);
  OrtStatus *(*CreateEnv)(int level, const char *name, OrtEnv **);
  void *gap4[3];
  OrtStatus *(*CreateSession)(const OrtEnv *, const char *file, const OrtSessionOptions *, OrtSession **);
  void *gap8[1];
  OrtStatus *(*Run)(OrtSession *, const OrtRunOptions *, const char *const *input_names,
                    const OrtValue *const *inputs, size_t n_inputs, const char *const *output_names,
                    size_t n_outputs, OrtValue **outputs);
  OrtStatus *(*CreateSessionOptions)(OrtSessionOptions **);
  void *gap11[13];
  OrtStatus *(*SetIntraOpNumThreads)(OrtSessionOptions *, int threads);
  void *gap25[5];
  OrtStatus *(*SessionGetInputCount)(const OrtSession *, size_t *);
  OrtStatus *(*SessionGetOutputCount)(const OrtSession *, size_t *);
  void *gap32[4];
  OrtStatus *(*SessionGetInputName)(const OrtSession *, size_t index, OrtAllocator *, char **);
  OrtStatus *(*SessionGetOutputName)(const OrtSession *, size_t index, OrtAllocator *, char **);
  void *gap38[11];
  OrtStatus *(*CreateTensorWithDataAsOrtValue)(const OrtMemoryInfo *, void *data, size_t bytes, const int64_t *shape,
                                               size_t dims, int type, OrtValue **);
  void *gap50[19];
  OrtStatus *(*CreateCpuMemoryInfo)(int allocator, int memory, OrtMemoryInfo **);
  void *gap70[6];
  OrtStatus *(*AllocatorFree)(OrtAllocator *, void *);
  void *gap77[1];
  OrtStatus *(*GetAllocatorWithDefaultOptions)(OrtAllocator **);
  void *gap79[13];
  void (*ReleaseEnv)(OrtEnv *);
  void (*ReleaseStatus)(OrtStatus *);
  void (*ReleaseMemoryInfo)(OrtMemoryInfo *);
  void (*ReleaseSession)(OrtSession *);
  void (*ReleaseValue)(OrtValue *);
  void *gap97[3];
  void (*ReleaseSessionOptions)(OrtSessionOptions *);
} OrtApi;

_Static_assert(offsetof(OrtApi, Run) == 9 * sizeof(void *), "OrtApi");
_Static_assert(offsetof(OrtApi, CreateTensorWithDataAsOrtValue) == 49 * sizeof(void *), "OrtApi");
_Static_assert(offsetof(OrtApi, GetAllocatorWithDefaultOptions) == 78 * sizeof(void *), "OrtApi");
_Static_assert(offsetof(OrtApi, ReleaseSessionOptions) == 100 * sizeof(void *), "OrtApi");

typedef struct OrtApiBase {
  const OrtApi *(*GetApi)(uint32_t version);
  const char *(*GetVersionString)(void);
} OrtApiBase;
#endif

#endif
