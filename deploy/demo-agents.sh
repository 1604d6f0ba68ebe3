#!/bin/sh
# The service `demo-agents` of compose.yaml: an agent for each of its credentials, named after the scenario that it plays.
# The container ends, and is started again, when one of them ends.
set -eu
for creds in /demo/agent-sim-*.creds; do
  id=${creds#/demo/agent-}
  id=${id%.creds}
  AGENT_ID=$id AGENT_SCENARIO=${id#sim-} NATS_CREDS=$creds AGENT_STATE_DIR=/demo/state-$id AGENT_HTTP_PORT=0 \
    python -m agentd &
  agents="${agents:-} $!"
done
# shellcheck disable=SC2086  # several process ids
trap 'kill $agents; wait; exit 0' TERM INT
while :; do
  for agent in $agents; do
    kill -0 "$agent" 2> /dev/null || exit 1
  done
  sleep 1 &
  wait $! || true
done
