/* parasail over all pairs, and one query over a database: as its manual calls it, in C.
 *
 * Sequences are bytes behind one another; offsets say where each begins. A function is looked up by its name. */
#include <stdint.h>
#include <string.h>
#include <parasail.h>

static int scored(parasail_result_t *result, int32_t *out) {
    int saturated = parasail_result_is_saturated(result);
    *out = parasail_result_get_score(result);
    parasail_result_free(result);
    return saturated;
}

static parasail_matrix_t *made(const char *letters, int match, int mismatch) {
    return parasail_matrix_create(letters, match, -mismatch);
}

/* Scores of pairs; returns how many ran over, -1 for no such function. A "profile" one gets a profile for each pair. */
int64_t pairs(const char *name, int64_t count, const int64_t *query_at, const char *queries, const int64_t *target_at,
              const char *targets, const int32_t *costs, int32_t *out) {
    parasail_matrix_t *matrix = made("ACGT", costs[0], costs[1]);
    parasail_function_t *function = parasail_lookup_function(name);
    parasail_pfunction_t *profiled = parasail_lookup_pfunction(name);
    parasail_pcreator_t *creator = parasail_lookup_pcreator(name);
    int64_t over = 0;
    if (!function && !(profiled && creator)) over = -1;
    for (int64_t i = 0; i < count && over >= 0; i++) {
        const char *query = queries + query_at[i], *target = targets + target_at[i];
        int rows = (int)(query_at[i + 1] - query_at[i]), columns = (int)(target_at[i + 1] - target_at[i]);
        if (function) {
            over += scored(function(query, rows, target, columns, costs[2], costs[3], matrix), out + i);
        } else {
            parasail_profile_t *profile = creator(query, rows, matrix);
            over += scored(profiled(profile, target, columns, costs[2], costs[3]), out + i);
            parasail_profile_free(profile);
        }
    }
    parasail_matrix_free(matrix);
    return over;
}

/* Scores of one query against each target, with one profile for all; costs: gap open, gap extend. */
int64_t search(const char *name, const char *scores, const char *query, int64_t rows, int64_t count,
               const int64_t *target_at, const char *targets, const int32_t *costs, int32_t *out) {
    const parasail_matrix_t *matrix = parasail_matrix_lookup(scores);
    parasail_pfunction_t *profiled = parasail_lookup_pfunction(name);
    parasail_pcreator_t *creator = parasail_lookup_pcreator(name);
    int64_t over = 0;
    if (!matrix || !profiled || !creator) return -1;
    parasail_profile_t *profile = creator(query, (int)rows, matrix);
    for (int64_t i = 0; i < count; i++) {
        int columns = (int)(target_at[i + 1] - target_at[i]);
        over += scored(profiled(profile, targets + target_at[i], columns, costs[0], costs[1]), out + i);
    }
    parasail_profile_free(profile);
    return over;
}
