/* The scenario vocabulary of docs/guide.md, for the stand-in: the same files that agentd/scenario.py plays. */
#ifndef SCENARIO_H
#define SCENARIO_H

enum state { OK, LOST, MISSING, HANG, ECC, XID, REMAP_PENDING, REMAP_FAILED, THERMAL, NOT_SUPPORTED };

struct now {
    enum state state;
    int xid; /* of state XID */
};

/* How many GPUs there are. Reads NVML_STANDIN_SCENARIO at the first call; without one: one GPU, always ok. */
int scenario_gpus(void);

/* What the GPU is like at this moment. Of several events the one that began last holds, then the later line. */
struct now scenario_now(int gpu);

/* The number of an XID of this GPU that has come and was not yet told, or 0. `skip` forgets those so far. */
int scenario_next_xid(int gpu, int skip);

#endif
