#!/bin/sh
# Installs the server side as systemd services on this machine: nats-server, scheduler, storage, gateway and
# enrolment.
# gpuping itself must be in /opt/gpuping (a venv with gpuping[all]). Run as root. It may be run again: it upgrades the
# units and leaves identities, credentials, tokens and settings alone.
#
# For a cluster of three, on the machines that the names n1, n2 and n3 lead to: CLUSTER_NODE=n1 ./install.sh on the first; then
# copy /etc/gpuping/{trust,creds,tokens,alerts} to the others, with their owners and modes, and CLUSTER_NODE=n2 (n3) there. Keys of
# identities stay on the first, and so does enrolment.
set -eu
node=${CLUSTER_NODE:-}
here=$(cd "$(dirname "$0")" && pwd)
etc=/etc/gpuping

for program in /opt/gpuping/bin/gpuping /opt/gpuping/bin/nats-server; do
  command -v "$program" > /dev/null || { echo "install.sh: $program is missing" >&2; exit 1; }
done
getent passwd gpuping > /dev/null || useradd --system --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin gpuping
getent passwd gpuping-enrolment > /dev/null || useradd --system --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin gpuping-enrolment
install -d -m 755 $etc
install -d -m 700 $etc/identity $etc/trust $etc/creds $etc/tokens $etc/alerts
install -d /data
# where GPU hosts reach the bus; its name goes into the certificate
NATS_PUBLIC_URL=${NATS_PUBLIC_URL:-$(sed -n 's/^NATS_PUBLIC_URL=//p' $etc/server.env 2> /dev/null || true)}
export NATS_PUBLIC_URL
units="gpuping-nats gpuping-layout gpuping-scheduler gpuping-storage gpuping-gateway gpuping-alerts"
configuration=$here/../nats.conf
url=tls://127.0.0.1:4222
more=
if [ -n "$node" ]; then
  export SETUP_BUS_NAMES=n1,n2,n3,localhost
  configuration=$here/../cluster/nats.conf
  url=tls://n1:4222,tls://n2:4222,tls://n3:4222
  more="GPUPING_REPLICAS=3\nSTORAGE_NAME=storage-$node\n"
  install -d /etc/systemd/system/gpuping-nats.service.d
  printf '[Service]\nExecStart=\nExecStart=/opt/gpuping/bin/python -m bus.server_watchdog /opt/gpuping/bin/nats-server -c /etc/gpuping/nats.conf --name %s\n' "$node" \
    > /etc/systemd/system/gpuping-nats.service.d/node.conf
fi
if [ -n "$node" ] && [ "$node" != n1 ]; then
  { [ -e $etc/trust/server.conf ] && [ -e $etc/creds/scheduler/fleet.json ]; } || { echo "install.sh: copy /etc/gpuping/{trust,creds,tokens,alerts} of n1 here first" >&2; exit 1; }
else
  units="$units gpuping-enrolment"
  PATH=/opt/gpuping/bin:$PATH SETUP_ROOT=$etc SETUP_TRUST_DIR=$etc/trust HOME=${HOME:-/root} sh "$here/../first-start.sh"
  install -d -m 700 -o gpuping-enrolment -g gpuping-enrolment /var/lib/gpuping-enrolment
  cp -R $etc/creds/enrolment/identity /var/lib/gpuping-enrolment/
  chown -R gpuping-enrolment:gpuping-enrolment /var/lib/gpuping-enrolment
fi
chown -R gpuping:gpuping $etc/trust $etc/tokens $etc/alerts
install -m 644 "$configuration" $etc/nats.conf
[ -e $etc/server.env ] || printf '# settings of all services, such as PING_BASE_INTERVAL_MINUTES=15\nNATS_URL=%s\nNATS_PUBLIC_URL=%s\n'"$more" "$url" "$NATS_PUBLIC_URL" > $etc/server.env
install -m 644 "$here"/gpuping-*.service /etc/systemd/system/
systemctl daemon-reload
# shellcheck disable=SC2086  # several units
systemctl enable $units
# shellcheck disable=SC2086
systemctl restart --no-block $units
# The streams of a cluster are made when two of the servers run.
# shellcheck disable=SC2086
[ -n "$node" ] || systemctl start $units
