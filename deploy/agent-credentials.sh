#!/bin/sh
# The one-shot services `demo-setup` and `gpu-setup` of compose.yaml: credentials of agents, in a folder, made once.
#   agent-credentials.sh FOLDER ID...
set -eu
umask 077
folder=$1
shift
for id; do
  if [ ! -e "$folder/agent-$id.creds" ]; then
    gpuping creds agent "$id" --days 365 --data-dir /identity -o "$folder/agent-$id.creds" > /dev/null
  fi
done
authority=/identity/identity/tls/ca.pem
[ -e "$authority" ] || authority=/identity/identity/tls/server.pem
cp "$authority" "$folder/ca.pem"
