/* Classify images by one ONNX file of `sar-bundle onnx`, in C: a line of JSON for each image.
 *
 *   apt-get install gcc libonnxruntime-dev
 *   gcc -I/usr/include/onnxruntime -o classify examples/readers/classify.c -lonnxruntime
 *   ./classify shop.onnx photo.ppm                                  (djpeg photo.jpg > photo.ppm)
 */
#include <onnxruntime_c_api.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const OrtApi *ort;

static void check(OrtStatus *status) {
  if (status == NULL) return;
  fprintf(stderr, "%s\n", ort->GetErrorMessage(status));
  exit(1);
}

/* Print entry `index` of a JSON list of strings as it stands there. */
static void print_name(const char *list, int64_t index) {
  for (const char *at = strchr(list, '"'); at != NULL; at = strchr(at, '"')) {
    const char *start = at++;
    while (*at != '"') at += *at == '\\' ? 2 : 1;
    at++;
    if (index-- == 0) printf("%.*s", (int)(at - start), start);
  }
}

int main(int count, char **arguments) {
  ort = OrtGetApiBase()->GetApi(18); /* of onnxruntime 1.18 and later */
  OrtEnv *env;
  OrtSession *session;
  OrtSessionOptions *options;
  OrtMemoryInfo *memory;
  OrtModelMetadata *metadata;
  OrtAllocator *allocator;
  char *names;
  check(ort->CreateEnv(ORT_LOGGING_LEVEL_ERROR, "classify", &env));
  check(ort->CreateSessionOptions(&options));
  check(ort->CreateSession(env, arguments[1], options, &session));
  check(ort->CreateCpuMemoryInfo(OrtArenaAllocator, OrtMemTypeDefault, &memory));
  check(ort->GetAllocatorWithDefaultOptions(&allocator));
  check(ort->SessionGetModelMetadata(session, &metadata));
  check(ort->ModelMetadataLookupCustomMetadataMap(metadata, allocator, "class_names", &names));
  for (int number = 2; number < count; number++) {
    int64_t shape[] = {0, 0, 3}; /* height, width, channels */
    int depth = 0;
    FILE *file = fopen(arguments[number], "rb");
    int fields = file == NULL ? 0 : fscanf(file, "P6 %5ld %5ld %5d", &shape[1], &shape[0], &depth);
    if (fields != 3 || depth != 255 || shape[0] < 1 || shape[1] < 1) {
      fprintf(stderr, "%s: expected a binary PPM of 8 bits\n", arguments[number]);
      return 1;
    }
    fgetc(file);
    size_t size = (size_t)(shape[0] * shape[1] * 3);
    unsigned char *pixels = malloc(size);
    if (pixels == NULL || fread(pixels, 1, size, file) != size) {
      fprintf(stderr, "%s: ends too early, or needs more memory than there is\n", arguments[number]);
      return 1;
    }
    fclose(file);
    OrtValue *image, *values[3] = {NULL, NULL, NULL};
    const char *inputs[] = {"image"}, *outputs[] = {"answer", "unknown", "scores"};
    check(ort->CreateTensorWithDataAsOrtValue(memory, pixels, size, shape, 3, ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8, &image));
    check(ort->Run(session, NULL, inputs, (const OrtValue *const *)&image, 1, outputs, 3, values));
    int64_t *answer;
    float *unknown, *scores;
    check(ort->GetTensorMutableData(values[0], (void **)&answer));
    check(ort->GetTensorMutableData(values[1], (void **)&unknown));
    check(ort->GetTensorMutableData(values[2], (void **)&scores));
    OrtTensorTypeAndShapeInfo *info;
    size_t classes;
    check(ort->GetTensorTypeAndShape(values[2], &info));
    check(ort->GetTensorShapeElementCount(info, &classes));
    printf("{\"image\": \"%s\", \"answer\": ", arguments[number]);
    if (*answer < 0) printf("null");
    else print_name(names, *answer);
    printf(", \"unknown\": %.7g, \"scores\": [%.7g", *unknown, scores[0]);
    for (size_t column = 1; column < classes; column++) printf(", %.7g", scores[column]);
    printf("]}\n");
    ort->ReleaseTensorTypeAndShapeInfo(info);
    for (int output = 0; output < 3; output++) ort->ReleaseValue(values[output]);
    ort->ReleaseValue(image);
    free(pixels);
  }
  return 0;
}
