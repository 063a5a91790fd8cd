/* WFA2-lib over all pairs, end to end with affine gaps, one aligner for all of them, as its manual calls it, in C. */
#include <stdint.h>
#include <string.h>
#include <utils/commons.h> /* the next ones need what it includes */
#include <wavefront/wavefront_align.h>

/* `name` is "score" or "path"; costs: mismatch, gap open, gap extend. Costs of alignments in `out`, 0 or more.
 * Returns how many failed, -1 for no such name. */
int64_t pairs(const char *name, int64_t count, const int64_t *query_at, const char *queries, const int64_t *target_at,
              const char *targets, const int32_t *costs, int32_t *out) {
    int path = !strcmp(name, "path");
    if (!path && strcmp(name, "score")) return -1;
    wavefront_aligner_attr_t attributes = wavefront_aligner_attr_default;
    attributes.distance_metric = gap_affine;
    attributes.affine_penalties.match = 0;
    attributes.affine_penalties.mismatch = costs[0];
    attributes.affine_penalties.gap_opening = costs[1];
    attributes.affine_penalties.gap_extension = costs[2];
    attributes.alignment_scope = path ? compute_alignment : compute_score;
    attributes.heuristic.strategy = wf_heuristic_none;
    wavefront_aligner_t *aligner = wavefront_aligner_new(&attributes);
    int64_t failed = 0;
    for (int64_t i = 0; i < count; i++) {
        failed += wavefront_align(aligner, queries + query_at[i], (int)(query_at[i + 1] - query_at[i]),
                                  targets + target_at[i], (int)(target_at[i + 1] - target_at[i])) != 0;
        out[i] = -aligner->cigar->score;
    }
    wavefront_aligner_delete(aligner);
    return failed;
}
