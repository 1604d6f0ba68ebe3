#!/bin/sh
# Installs the server side as systemd services on this machine: nats-server, scheduler, storage and gateway.
# gpuping itself must be in /opt/gpuping (a venv with gpuping[all]). Run as root. It may be run again: it upgrades the
# units and leaves identities, credentials, tokens and settings alone.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
etc=/etc/gpuping

for program in /opt/gpuping/bin/gpuping /opt/gpuping/bin/nats-server openssl; do
  command -v "$program" > /dev/null || { echo "install.sh: $program is missing" >&2; exit 1; }
done
getent passwd gpuping > /dev/null || useradd --system --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin gpuping
install -d -m 755 $etc
install -d -m 700 $etc/identity $etc/trust $etc/creds $etc/tokens
install -d /data
PATH=/opt/gpuping/bin:$PATH SETUP_ROOT=$etc SETUP_TRUST_DIR=$etc/trust HOME=${HOME:-/root} sh "$here/../first-start.sh"
chown -R gpuping:gpuping $etc/trust $etc/tokens
install -m 644 "$here/../nats.conf" $etc/nats.conf
[ -e $etc/server.env ] || printf '# settings of all services, such as PING_BASE_INTERVAL_MINUTES=15\nNATS_URL=tls://127.0.0.1:4222\n' > $etc/server.env
install -m 644 "$here"/gpuping-*.service /etc/systemd/system/
systemctl daemon-reload
systemctl enable gpuping-nats gpuping-layout gpuping-scheduler gpuping-storage gpuping-gateway
systemctl restart gpuping-nats gpuping-layout gpuping-scheduler gpuping-storage gpuping-gateway
