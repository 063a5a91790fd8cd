/* Task Bench over MPI: nonblocking messages, one to each rank that reads something, a step.
 *
 *   mpicc -O3 -march=native -ffp-contract=fast -o taskbench taskbench.c
 *   mpirun -np 2 taskbench
 *
 * Rank 0 reads lines "PATTERN WIDTH STEPS ITERATIONS RADIX SEED EXPECTED" and answers each with one JSON line. EXPECTED is a
 * file of int64: phases, lead, most, then phases x width x (1 + most): what each task must find, made by the
 * benchmark's oracle; it serves for checking only. Which tasks a task reads, and who is sent what, follows from the
 * formulas below. Written from the rules of Slaughter et al., SC'20 (arXiv 1908.05790). */
#include <mpi.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef struct { int64_t at, point; uint64_t hash; } Cell;
typedef double Lanes __attribute__((vector_size(64)));
typedef struct { char pattern[32]; int64_t width, steps, iterations, radix, seed; char expected[512]; } Order;

static const uint64_t START = 0x9E3779B97F4A7C15u, FACTOR = 0xD1342543DE82EF95u;

static int64_t levels(int64_t width) { int64_t n = 0; while (((int64_t)1 << n) < width) n++; return n; }

static uint64_t scattered(const uint64_t *numbers, int count) {
    uint64_t x = 0;
    for (int i = 0; i < count; i++) {
        x += numbers[i] + START;
        x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
        x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
        x ^= x >> 31;
    }
    return x;
}

static int64_t row(const Order *o, int64_t t) {
    if (strcmp(o->pattern, "tree") != 0 || t >= levels(o->width)) return o->width;
    return (int64_t)1 << t;
}

static int within(int64_t q, const Order *o, int64_t *out, int n) {
    if (q < 0 || q >= o->width) return n;
    out[n] = q;
    return n + 1;
}

/* The points of row t - 1 that task (t, p) reads, in order. */
static int inputs(const Order *o, int64_t t, int64_t p, int64_t *out) {
    const char *is = o->pattern;
    const int64_t w = o->width, r = o->radix;
    int n = 0;
    if (!strcmp(is, "trivial")) return 0;
    if (!strcmp(is, "no_comm")) return within(p, o, out, 0);
    if (!strcmp(is, "tree")) return within(t <= levels(w) ? p / 2 : p, o, out, 0);
    if (!strcmp(is, "stencil_1d_periodic")) {
        for (int d = -1; d <= 1; d++) out[n++] = (p + d + w) % w;
        return n;
    }
    if (!strcmp(is, "stencil_1d")) { for (int d = -1; d <= 1; d++) n = within(p + d, o, out, n); return n; }
    if (!strcmp(is, "dom")) { for (int d = -1; d <= 0; d++) n = within(p + d, o, out, n); return n; }
    if (!strcmp(is, "all_to_all")) { for (int64_t q = 0; q < w; q++) n = within(q, o, out, n); return n; }
    if (!strcmp(is, "fft")) {
        int64_t l = levels(w) ? levels(w) : 1, far = (int64_t)1 << ((t - 1 + l) % l);
        for (int d = -1; d <= 1; d++) n = within(p + d * far, o, out, n);
        return n;
    }
    if (!strcmp(is, "spread")) {
        for (int64_t i = 0; i < r; i++) out[n++] = (p + i * w / r + (i ? t : 0)) % w;
        return n;
    }
    for (int64_t q = p - r / 2; q < p + r - r / 2; q++) {
        const uint64_t numbers[] = {(uint64_t)o->seed, (uint64_t)(t % 3), (uint64_t)p, (uint64_t)q};
        if (strcmp(is, "random_nearest") || scattered(numbers, 4) < (uint64_t)1 << 63) n = within(q, o, out, n);
    }
    return n;
}

/* 64 independent multiply-adds an iteration, then their sum in order. */
static double computed(int64_t iterations, double begin) {
    Lanes a[8];
    for (int i = 0; i < 8; i++) for (int k = 0; k < 8; k++) a[i][k] = begin + (8 * i + k);
    for (int64_t n = 0; n < iterations; n++)
        for (int i = 0; i < 8; i++) a[i] = a[i] * 0.999 + 0.001;
    double total = 0.0;
    for (int i = 0; i < 8; i++) for (int k = 0; k < 8; k++) total += a[i][k];
    return total;
}

static int64_t owner(int64_t p, int64_t width, int ranks) {
    int64_t m = p * ranks / width;
    while (p >= (m + 1) * width / ranks) m++;
    while (p < m * width / ranks) m--;
    return m;
}

typedef struct {              /* tables of one phase: a task's inputs; what goes to and comes from each rank */
    int *count, *begin; int64_t *input;
    int *sends, *receives; int64_t **send, **receive;
} Phase;

static void tabulate(Phase *f, const Order *o, int64_t t, int64_t lo, int64_t hi, int ranks, int me) {
    const int64_t w = o->width;
    int64_t *out = malloc(sizeof *out * (w + o->radix + 3));
    char *reads = calloc(w * ranks, 1);                 /* rank r reads point q */
    f->count = calloc(w, sizeof *f->count), f->begin = calloc(w, sizeof *f->begin), f->input = NULL;
    int total = 0;
    for (int64_t p = 0; p < row(o, t); p++) {
        int n = inputs(o, t, p, out);
        for (int k = 0; k < n; k++) reads[owner(p, w, ranks) * w + out[k]] = 1;
        if (p < lo || p >= hi) continue;
        f->count[p] = n, f->begin[p] = total;
        f->input = realloc(f->input, sizeof *out * (total + n + 1));
        memcpy(f->input + total, out, sizeof *out * n);
        total += n;
    }
    f->sends = calloc(ranks, sizeof(int)), f->receives = calloc(ranks, sizeof(int));
    f->send = calloc(ranks, sizeof(void *)), f->receive = calloc(ranks, sizeof(void *));
    for (int r = 0; r < ranks; r++) {
        f->send[r] = malloc(sizeof *out * w), f->receive[r] = malloc(sizeof *out * w);
        for (int64_t q = 0; q < w && r != me; q++) {
            if (reads[r * w + q] && q >= lo && q < hi) f->send[r][f->sends[r]++] = q;
            if (reads[me * w + q] && owner(q, w, ranks) == r) f->receive[r][f->receives[r]++] = q;
        }
    }
    free(reads), free(out);
}

static void release(Phase *f, int ranks) {
    for (int r = 0; r < ranks; r++) free(f->send[r]), free(f->receive[r]);
    free(f->count), free(f->begin), free(f->input), free(f->sends), free(f->receives), free(f->send), free(f->receive);
}

static double run(const Order *o, int ranks, int me, Cell *last, int64_t *done, int64_t *wrong) {
    int64_t head[3] = {1, 0, 0}, w = o->width, lo = me * w / ranks, hi = (me + 1) * w / ranks;
    FILE *file = fopen(o->expected, "rb");
    if (file == NULL || fread(head, 8, 3, file) != 3) MPI_Abort(MPI_COMM_WORLD, 3);
    const int64_t phases = head[0], lead = head[1], wide = 1 + head[2];
    int64_t *expected = malloc(8 * phases * w * wide);
    if (fread(expected, 8, phases * w * wide, file) != (size_t)(phases * w * wide)) MPI_Abort(MPI_COMM_WORLD, 3);
    fclose(file);
    Phase *tables = calloc(phases, sizeof *tables);
    for (int64_t f = 0; f < phases; f++) tabulate(&tables[f], o, f, lo, hi, ranks, me);
    Cell *before = malloc(sizeof(Cell) * w), *after = malloc(sizeof(Cell) * w);
    Cell *out = malloc(sizeof(Cell) * w * ranks), *in = malloc(sizeof(Cell) * w * ranks);
    MPI_Request *wait = malloc(sizeof(MPI_Request) * 2 * ranks);
    for (int64_t p = 0; p < w; p++) before[p] = after[p] = (Cell){-1, p, (uint64_t)p * FACTOR};
    *done = *wrong = 0;
    MPI_Barrier(MPI_COMM_WORLD);
    double began = MPI_Wtime();
    for (int64_t t = 0, phase = 0; t < o->steps; t++) {
        const Phase *f = &tables[phase];
        if (t > 0 && ranks > 1) {
            int n = 0;
            for (int r = 0; r < ranks; r++)
                if (f->receives[r])
                    MPI_Irecv(in + r * w, f->receives[r] * sizeof(Cell), MPI_BYTE, r, 0, MPI_COMM_WORLD, &wait[n++]);
            for (int r = 0; r < ranks; r++) {
                if (!f->sends[r]) continue;
                for (int k = 0; k < f->sends[r]; k++) out[r * w + k] = before[f->send[r][k]];
                MPI_Isend(out + r * w, f->sends[r] * sizeof(Cell), MPI_BYTE, r, 0, MPI_COMM_WORLD, &wait[n++]);
            }
            if (n) MPI_Waitall(n, wait, MPI_STATUSES_IGNORE);
            for (int r = 0; r < ranks; r++)
                for (int k = 0; k < f->receives[r]; k++) before[f->receive[r][k]] = in[r * w + k];
        }
        const int64_t end = row(o, t) < hi ? row(o, t) : hi;
        for (int64_t p = lo; p < hi; p++) {
            if (p >= end) { after[p] = before[p]; continue; }
            const int64_t *must = expected + (phase * w + p) * wide, *from = f->input + f->begin[p];
            uint64_t chain = START * (uint64_t)(t + 1) + (uint64_t)p;
            int bad = f->count[p] != must[0];
            for (int k = 0; k < f->count[p]; k++) {
                const Cell *c = &before[from[k]];
                bad |= (c->at != t - 1) | (c->point != must[1 + k]);
                chain = (chain + c->hash) * FACTOR;
                chain ^= chain >> 32;
            }
            *wrong += bad;
            double value = computed(o->iterations, 0.001 * t + p);
            if (value != value) chain += START;
            after[p] = (Cell){t, p, chain};
            ++*done;
        }
        Cell *swap = before; before = after, after = swap;
        if (++phase == phases) phase = lead;
    }
    double ended = MPI_Wtime(), first, latest;
    MPI_Allreduce(&began, &first, 1, MPI_DOUBLE, MPI_MIN, MPI_COMM_WORLD);
    MPI_Allreduce(&ended, &latest, 1, MPI_DOUBLE, MPI_MAX, MPI_COMM_WORLD);
    memcpy(last + lo, before + lo, sizeof(Cell) * (hi - lo));
    for (int64_t f = 0; f < phases; f++) release(&tables[f], ranks);
    free(tables), free(expected), free(before), free(after), free(out), free(in), free(wait);
    return latest - first;
}

/* Wait without taking a core from whoever is measured meanwhile. */
static void receive_order(Order *o) {
    MPI_Request asked;
    int came = 0;
    MPI_Ibcast(o, sizeof *o, MPI_BYTE, 0, MPI_COMM_WORLD, &asked);
    while (!came) {
        MPI_Test(&asked, &came, MPI_STATUS_IGNORE);
        if (!came) usleep(1000);
    }
}

int main(int argc, char **argv) {
    int me, ranks;
    char line[1024], library[MPI_MAX_LIBRARY_VERSION_STRING];
    MPI_Init(&argc, &argv);
    MPI_Comm_rank(MPI_COMM_WORLD, &me);
    MPI_Comm_size(MPI_COMM_WORLD, &ranks);
    for (;;) {
        Order o;
        memset(&o, 0, sizeof o);
        long long n[5];
        if (me == 0 && fgets(line, sizeof line, stdin) != NULL
            && sscanf(line, "%31s %lld %lld %lld %lld %lld %511s", o.pattern, n, n + 1, n + 2, n + 3, n + 4, o.expected) == 7)
            o.width = n[0], o.steps = n[1], o.iterations = n[2], o.radix = n[3], o.seed = n[4];
        receive_order(&o);
        if (o.width == 0) break;
        Cell *last = calloc(o.width, sizeof *last);
        int64_t numbers[2], sums[2];
        double seconds = run(&o, ranks, me, last, &numbers[0], &numbers[1]);
        MPI_Reduce(numbers, sums, 2, MPI_INT64_T, MPI_SUM, 0, MPI_COMM_WORLD);
        uint64_t *mine = calloc(o.width, 8), *hashes = calloc(o.width, 8);
        for (int64_t p = 0; p < o.width; p++) mine[p] = last[p].hash;
        MPI_Reduce(mine, hashes, o.width, MPI_UINT64_T, MPI_SUM, 0, MPI_COMM_WORLD);
        if (me == 0) {
            int length;
            MPI_Get_library_version(library, &length);
            library[strcspn(library, ",")] = 0;
            printf("{\"seconds\": %.9f, \"tasks\": %lld, \"wrong\": %lld, \"library\": \"%s\", \"hashes\": [", seconds,
                   (long long)sums[0], (long long)sums[1], library);
            for (int64_t p = 0; p < o.width; p++) printf("%s%llu", p ? ", " : "", (unsigned long long)hashes[p]);
            printf("]}\n");
            fflush(stdout);
        }
        free(last), free(mine), free(hashes);
    }
    MPI_Finalize();
    return 0;
}
