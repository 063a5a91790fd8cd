/* edlib over all pairs: distances only, with no bound given, as its manual calls it, in C. */
#include <stdint.h>
#include <string.h>
#include <edlib.h>

/* `name` is a mode: "NW", "SHW" or "HW". Returns how many failed, -1 for no such mode. */
int64_t pairs(const char *name, int64_t count, const int64_t *query_at, const char *queries, const int64_t *target_at,
              const char *targets, const int32_t *costs, int32_t *out) {
    (void)costs;
    int global = !strcmp(name, "NW"), prefix = !strcmp(name, "SHW");
    if (!global && !prefix && strcmp(name, "HW")) return -1;
    EdlibAlignMode mode = global ? EDLIB_MODE_NW : prefix ? EDLIB_MODE_SHW : EDLIB_MODE_HW;
    EdlibAlignConfig config = edlibNewAlignConfig(-1, mode, EDLIB_TASK_DISTANCE, NULL, 0);
    int64_t failed = 0;
    for (int64_t i = 0; i < count; i++) {
        EdlibAlignResult result = edlibAlign(queries + query_at[i], (int)(query_at[i + 1] - query_at[i]),
                                             targets + target_at[i], (int)(target_at[i + 1] - target_at[i]), config);
        failed += result.status != EDLIB_STATUS_OK;
        out[i] = result.editDistance;
        edlibFreeAlignResult(result);
    }
    return failed;
}
