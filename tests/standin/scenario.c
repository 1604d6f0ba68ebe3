/* Reads the scenario file (the small part of TOML that it uses) and tells what holds at this moment.
 *
 * Time is what the file NVML_STANDIN_CLOCK says, or else counts from NVML_STANDIN_STARTED (CLOCK_BOOTTIME, seconds), or else from the start of the parent process:
 * agentd's, when its probe child loads us. So a child that is started again finds the scenario where it was. */
#include "scenario.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define MAX_EVENTS 256
#define MAX_GPUS 64
#define ALL (-1)

struct event {
    double at, lasts, every; /* lasts, every: 0 when absent */
    int gpu;
    struct now what;
};

static struct event events[MAX_EVENTS];
static long told[MAX_EVENTS][MAX_GPUS]; /* occurrences of an XID already told */
static int event_count, gpus = 1, is_read;
static double started;

static void refuse(const char *what, const char *line) {
    fprintf(stderr, "stand-in: %s: %s\n", what, line);
    abort(); /* a test with a broken scenario must not pass */
}

static double parent_start(void) {
    char path[64], text[1024], *field;
    FILE *file;
    size_t length;
    int i;
    snprintf(path, sizeof path, "/proc/%d/stat", (int)getppid());
    file = fopen(path, "r");
    if (!file) return 0;
    length = fread(text, 1, sizeof text - 1, file);
    fclose(file);
    text[length] = 0;
    field = strrchr(text, ')'); /* the command may hold spaces; starttime is field 22, this is the end of field 2 */
    for (i = 2; field && i < 22; i++) field = strchr(field + 1, ' ');
    return field ? atof(field) / (double)sysconf(_SC_CLK_TCK) : 0;
}

static struct now word(const char *text, const char *line) {
    static const char *const words[] = {"ok", "lost", "missing", "hang", "ecc", "xid:", "remap-pending",
                                        "remap-failed", "thermal", "not-supported"};
    struct now found = {OK, 0};
    unsigned i;
    if (!strncmp(text, "xid:", 4)) {
        found.state = XID;
        found.xid = atoi(text + 4);
        return found;
    }
    for (i = 0; i < sizeof words / sizeof *words; i++)
        if (!strcmp(text, words[i])) {
            found.state = (enum state)i;
            return found;
        }
    refuse("unknown state", line);
    return found;
}

static void set(struct event *event, const char *key, const char *value, const char *line) {
    char text[64] = "";
    int quoted = sscanf(value, "\"%63[^\"]\"", text) == 1;
    if (!strcmp(key, "gpus")) gpus = atoi(value);
    else if (!event) refuse("key outside an event", line);
    else if (!strcmp(key, "at")) event->at = atof(value);
    else if (!strcmp(key, "for")) event->lasts = atof(value);
    else if (!strcmp(key, "every")) event->every = atof(value);
    else if (!strcmp(key, "gpu")) event->gpu = quoted && !strcmp(text, "all") ? ALL : atoi(value);
    else if (!strcmp(key, "state")) event->what = word(text, line);
    else refuse("unknown key", line);
}

static void read_scenario(void) {
    const char *path = getenv("NVML_STANDIN_SCENARIO"), *origin = getenv("NVML_STANDIN_STARTED");
    struct event *event = NULL;
    char line[512], key[64], value[256];
    FILE *file;
    if (is_read) return;
    is_read = 1;
    started = origin ? atof(origin) : parent_start();
    if (!path) return;
    file = fopen(path, "r");
    if (!file) refuse("cannot open", path);
    while (fgets(line, sizeof line, file)) {
        if (strstr(line, "[[event]]") == line) {
            if (event_count == MAX_EVENTS) refuse("too many events", line);
            event = &events[event_count++];
        } else if (line[0] != '#' && sscanf(line, " %63[a-z] = %255[^\n#]", key, value) == 2) {
            set(event, key, value, line);
        }
    }
    fclose(file);
    if (gpus < 0 || gpus > MAX_GPUS) refuse("gpus", path);
}

/* Seconds into the scenario: of NVML_STANDIN_CLOCK, a file with that number, where a test drives the time itself. */
static double elapsed(void) {
    struct timespec now;
    const char *path = getenv("NVML_STANDIN_CLOCK");
    char text[64] = "";
    FILE *file = path ? fopen(path, "r") : NULL;
    if (file) {
        if (!fgets(text, sizeof text, file)) refuse("no time in", path);
        fclose(file);
        return atof(text);
    }
    clock_gettime(CLOCK_BOOTTIME, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9 - started;
}

/* How often the event has begun by then; `began` is when it last did. */
static long occurrences(const struct event *event, double at, double *began) {
    long count;
    if (at < event->at) return 0;
    count = event->every > 0 ? (long)((at - event->at) / event->every) + 1 : 1;
    *began = event->at + (double)(count - 1) * event->every;
    return count;
}

int scenario_gpus(void) {
    read_scenario();
    return gpus;
}

struct now scenario_now(int gpu) {
    struct now found = {OK, 0};
    double since = 0, at, began = 0;
    int i;
    read_scenario();
    at = elapsed();
    for (i = 0; i < event_count; i++) {
        const struct event *event = &events[i];
        if (event->gpu != ALL && event->gpu != gpu) continue;
        if (!occurrences(event, at, &began) || (event->lasts > 0 && at >= began + event->lasts)) continue;
        if (began >= since) {
            since = began;
            found = event->what;
        }
    }
    return found;
}

int scenario_next_xid(int gpu, int skip) {
    double at, began = 0;
    int i;
    read_scenario();
    at = elapsed();
    for (i = 0; i < event_count; i++) {
        const struct event *event = &events[i];
        long count;
        if (event->what.state != XID || (event->gpu != ALL && event->gpu != gpu)) continue;
        count = occurrences(event, at, &began);
        if (skip) told[i][gpu] = count;
        else if (told[i][gpu] < count) {
            told[i][gpu]++;
            return event->what.xid;
        }
    }
    return 0;
}
