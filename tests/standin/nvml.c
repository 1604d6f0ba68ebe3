/* A stand-in for libnvidia-ml.so.1: the calls that agentd makes, answered by a scenario. For tests without a GPU.
 *
 * The real pynvml loads it through LD_LIBRARY_PATH. As in the real library, GPUs are enumerated when it is opened:
 * one that goes missing later is lost to those who hold it, and gone at the next opening.
 *
 *   NVML_STANDIN_SCENARIO  the scenario file (scenario.c)
 *   NVML_STANDIN_INIT      an NVML return code that opening fails with
 *   NVML_STANDIN_OPENING   seconds that each opening takes
 *   NVML_STANDIN_DENIED    index of a GPU that may not be opened, or -1 for all: its handle is refused with code 4
 *   NVML_STANDIN_MIG       index of a GPU in MIG mode, with the devices (GI 1, CI 0) and (GI 2, CI 0)
 *   NVML_STANDIN_ODD_NAME  index of a GPU whose name is not UTF-8
 *   NVML_STANDIN_ODD_MIG   index of a GPU that answers 4 to how many MIG devices it may have
 *   NVML_STANDIN_ODD_ECC   index of a GPU whose error counter is the largest number: "not available"
 *   NVML_STANDIN_CRASH     index of a GPU whose health calls crash the caller */
#include "scenario.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { SUCCESS = 0, NOT_SUPPORTED_CODE = 3, NOT_FOUND = 6, INVALID = 2, NOT_OPEN = 1, NO_PERMISSION = 4, TIMED_OUT = 10, IS_LOST = 15 };
#define API __attribute__((visibility("default"))) int

struct device {
    int gpu, gi, ci; /* gi: -1 for a whole GPU */
};
struct memory { unsigned long long total, free, used; };
struct utilization { unsigned gpu, memory; };
struct process { unsigned pid; unsigned long long used; unsigned gi, ci; };
struct pci { char legacy[16]; unsigned domain, bus, device, id, subsystem; char bus_id[32]; };
struct event_data { struct device *device; unsigned long long type, data; unsigned gi, ci; };
struct fabric { unsigned char cluster[16]; unsigned status, clique; unsigned char state; };
struct field { uint32_t id, scope; int64_t when, latency; unsigned type, code; union { unsigned u; double d; } value; };

static struct device devices[64], mig_devices[2];
static int enumerated[64], count, opened, watched[64];

static int from_env(const char *name) {
    const char *text = getenv(name);
    return text && *text ? atoi(text) : -1;
}

static void hang_while(int gpu) {
    while (scenario_now(gpu).state == HANG) usleep(5000);
}

/* What every call about a GPU does first: hang, crash, or find it lost. */
static int reach(const struct device *device) {
    enum state state;
    if (!opened) return NOT_OPEN;
    if (!device) return INVALID;
    hang_while(device->gpu);
    state = scenario_now(device->gpu).state;
    return state == LOST || state == MISSING ? IS_LOST : SUCCESS;
}

/* As `reach`, for signals that the state not-supported takes away. */
static int ask(const struct device *device) {
    int code = reach(device);
    if (!code && from_env("NVML_STANDIN_CRASH") == device->gpu) abort();
    return !code && scenario_now(device->gpu).state == NOT_SUPPORTED ? NOT_SUPPORTED_CODE : code;
}

#define ANSWER(name, type, expression)            \
    API name(struct device *device, type *out) {  \
        int code = ask(device);                   \
        if (!code) *out = (expression);           \
        return code;                              \
    }

/* ---- opening and enumerating ---- */

static void sleep_while_opening(void) {
    const char *text = getenv("NVML_STANDIN_OPENING");
    double seconds = text ? atof(text) : 0;
    struct timespec left = {(time_t)seconds, (long)((seconds - (double)(time_t)seconds) * 1e9)};
    while (nanosleep(&left, &left)) continue;
}

static int is_denied(int gpu) {
    const char *text = getenv("NVML_STANDIN_DENIED");
    return text && *text && (atoi(text) == -1 || atoi(text) == gpu);
}

API nvmlInit_v2(void) {
    int gpu, hanging = 0, failure = from_env("NVML_STANDIN_INIT");
    if (failure > 0) return failure;
    sleep_while_opening();
    for (gpu = 0; gpu < scenario_gpus(); gpu++) hanging += scenario_now(gpu).state == HANG;
    if (hanging && hanging == scenario_gpus()) hang_while(0);
    for (gpu = count = 0; gpu < scenario_gpus(); gpu++) {
        devices[gpu].gpu = gpu;
        devices[gpu].gi = -1;
        if (scenario_now(gpu).state != MISSING) enumerated[count++] = gpu;
    }
    memset(watched, 0, sizeof watched);
    opened = 1;
    return SUCCESS;
}
API nvmlInitWithFlags(unsigned flags) { (void)flags; return nvmlInit_v2(); }
API nvmlShutdown(void) { opened = 0; return SUCCESS; }
__attribute__((visibility("default"))) const char *nvmlErrorString(int code) { (void)code; return "stand-in"; }

API nvmlSystemGetDriverVersion(char *out, unsigned size) { snprintf(out, size, "570.00-standin"); return SUCCESS; }
API nvmlDeviceGetCount_v2(unsigned *out) { *out = (unsigned)count; return opened ? SUCCESS : NOT_OPEN; }

API nvmlDeviceGetHandleByIndex_v2(unsigned index, struct device **out) {
    enum state state;
    if ((int)index >= count) return INVALID;
    *out = &devices[enumerated[index]];
    if (is_denied((*out)->gpu)) return NO_PERMISSION;
    state = scenario_now((*out)->gpu).state;
    return state == LOST || state == MISSING ? IS_LOST : SUCCESS;
}
API nvmlDeviceGetUUID(struct device *device, char *out, unsigned size) {
    snprintf(out, size, "GPU-5ca1ab1e-0000-4000-8000-%012d", device->gpu);
    return SUCCESS;
}
API nvmlDeviceGetHandleByUUID(const char *uuid, struct device **out) {
    int i;
    char own[96];
    for (i = 0; i < count; i++) {
        *out = &devices[enumerated[i]];
        nvmlDeviceGetUUID(*out, own, sizeof own);
        if (!strcmp(own, uuid)) return reach(*out);
    }
    return NOT_FOUND;
}

/* ---- who it is: kept by the library, so never a hang ---- */

API nvmlDeviceGetName(struct device *device, char *out, unsigned size) {
    if (from_env("NVML_STANDIN_ODD_NAME") == device->gpu) {
        snprintf(out, size, "NVIDIA \xf8\xd1\xc2"); /* not UTF-8, as seen under WSL2 */
        return SUCCESS;
    }
    snprintf(out, size, "NVIDIA Stand-in");
    return SUCCESS;
}
API nvmlDeviceGetPciInfo_v3(struct device *device, struct pci *out) {
    memset(out, 0, sizeof *out);
    out->bus = 0xf0u + (unsigned)device->gpu;
    snprintf(out->bus_id, sizeof out->bus_id, "00000000:%02X:00.0", out->bus);
    return SUCCESS;
}
API nvmlDeviceGetSerial(struct device *device, char *out, unsigned size) {
    int code = ask(device);
    if (!code) snprintf(out, size, "standin-%d", device->gpu);
    return code;
}

/* ---- health ---- */

static int recovery(int gpu) {
    static const int fatal[] = {48, 62, 64, 79, 95, 119, 120, 140}, partly[] = {74, 94};
    struct now now = scenario_now(gpu);
    unsigned i;
    if (now.state != XID) return 0;
    for (i = 0; i < sizeof fatal / sizeof *fatal; i++) if (now.xid == fatal[i]) return 1; /* GPU reset */
    for (i = 0; i < sizeof partly / sizeof *partly; i++) if (now.xid == partly[i]) return 3; /* drain P2P */
    return 0;
}
API nvmlDeviceGetFieldValues(struct device *device, int n, struct field *fields) {
    int i, code = reach(device);
    for (i = 0; !code && i < n; i++) {
        int unknown = fields[i].id != 230 || scenario_now(device->gpu).state == NOT_SUPPORTED;
        fields[i].code = unknown ? NOT_SUPPORTED_CODE : SUCCESS;
        fields[i].value.u = (unsigned)recovery(device->gpu);
    }
    return code;
}
API nvmlDeviceGetTotalEccErrors(struct device *device, int kind, int counter, unsigned long long *out) {
    int code = ask(device);
    if (!code) *out = kind == 1 && counter == 0 && scenario_now(device->gpu).state == ECC ? 2 : 0;
    if (!code && from_env("NVML_STANDIN_ODD_ECC") == device->gpu) *out = ~0ull;
    return code;
}
API nvmlDeviceGetRemappedRows(struct device *device, unsigned *corrected, unsigned *uncorrected, unsigned *pending,
                              unsigned *failed) {
    int code = ask(device);
    if (code) return code;
    *corrected = *uncorrected = 0;
    *pending = scenario_now(device->gpu).state == REMAP_PENDING;
    *failed = scenario_now(device->gpu).state == REMAP_FAILED;
    return SUCCESS;
}
/* A power cap (0x4) is always there, and is normal. */
ANSWER(nvmlDeviceGetCurrentClocksThrottleReasons, unsigned long long,
       0x4 | (scenario_now(device->gpu).state == THERMAL ? 0x40 : 0))
ANSWER(nvmlDeviceGetTotalEnergyConsumption, unsigned long long, 1000000)
API nvmlDeviceGetGpuFabricInfo(struct device *device, struct fabric *out) {
    int code = ask(device);
    memset(out, 0, sizeof *out);
    out->state = 3; /* completed, with status 0 */
    return code;
}

/* ---- MIG ---- */

API nvmlDeviceGetMigMode(struct device *device, unsigned *current, unsigned *pending) {
    int code = ask(device);
    if (!code && from_env("NVML_STANDIN_MIG") < 0) return NOT_SUPPORTED_CODE;
    *current = *pending = from_env("NVML_STANDIN_MIG") == device->gpu;
    return code;
}
API nvmlDeviceGetMaxMigDeviceCount(struct device *device, unsigned *out) {
    int code = ask(device);
    if (!code && from_env("NVML_STANDIN_ODD_MIG") == device->gpu) return NO_PERMISSION;
    *out = 7;
    return code;
}
API nvmlDeviceGetMigDeviceHandleByIndex(struct device *device, unsigned index, struct device **out) {
    if (index >= 2) return NOT_FOUND;
    *out = &mig_devices[index];
    (*out)->gpu = device->gpu;
    (*out)->gi = (int)index + 1;
    return SUCCESS;
}
ANSWER(nvmlDeviceGetGpuInstanceId, unsigned, (unsigned)device->gi)
ANSWER(nvmlDeviceGetComputeInstanceId, unsigned, (unsigned)device->ci)

/* ---- events ---- */

API nvmlEventSetCreate(void **out) { *out = watched; return SUCCESS; }
API nvmlEventSetFree(void *set) { (void)set; return SUCCESS; }
API nvmlDeviceRegisterEvents(struct device *device, unsigned long long types, void *set) {
    int code = ask(device);
    (void)types, (void)set;
    if (code) return code;
    watched[device->gpu] = 1;
    scenario_next_xid(device->gpu, 1); /* what came before was told to nobody */
    return SUCCESS;
}
API nvmlEventSetWait_v2(void *set, struct event_data *out, unsigned timeout) {
    int gpu, xid;
    (void)set, (void)timeout;
    for (gpu = 0; gpu < scenario_gpus(); gpu++)
        if (watched[gpu] && (xid = scenario_next_xid(gpu, 0))) {
            memset(out, 0, sizeof *out);
            out->device = &devices[gpu];
            out->type = 0x8;
            out->data = (unsigned long long)xid;
            return SUCCESS;
        }
    return TIMED_OUT;
}

/* ---- details ---- */

API nvmlDeviceGetTemperature(struct device *device, unsigned sensor, unsigned *out) {
    int code = ask(device);
    (void)sensor;
    if (!code) *out = scenario_now(device->gpu).state == THERMAL ? 95 : 41;
    return code;
}
ANSWER(nvmlDeviceGetPowerUsage, unsigned, 150500)
ANSWER(nvmlDeviceGetEnforcedPowerLimit, unsigned, 700000)
ANSWER(nvmlDeviceGetUtilizationRates, struct utilization, ((struct utilization){37, 12}))
ANSWER(nvmlDeviceGetMemoryInfo, struct memory, ((struct memory){80ull << 30, 70ull << 30, 10ull << 30}))
ANSWER(nvmlDeviceGetCurrPcieLinkGeneration, unsigned, 4)
ANSWER(nvmlDeviceGetMaxPcieLinkGeneration, unsigned, 5)
ANSWER(nvmlDeviceGetCurrPcieLinkWidth, unsigned, 16)
ANSWER(nvmlDeviceGetMaxPcieLinkWidth, unsigned, 16)
ANSWER(nvmlDeviceGetPersistenceMode, unsigned, 1)
API nvmlDeviceGetComputeRunningProcesses_v3(struct device *device, unsigned *n, struct process *out) {
    int code = ask(device);
    if (code) return code;
    if (!out || *n < 1) return *n = 1, 7; /* too small */
    *n = 1;
    out[0] = (struct process){4242, 1ull << 30, ~0u, ~0u};
    return SUCCESS;
}
API nvmlDeviceGetGraphicsRunningProcesses_v3(struct device *device, unsigned *n, struct process *out) {
    (void)out;
    *n = 0;
    return ask(device);
}
