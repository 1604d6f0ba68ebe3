#!/bin/sh
# Installs the server side as systemd services on this machine: nats-server, scheduler, storage, gateway and
# enrolment.
# gpuping itself must be in /opt/gpuping (a venv with gpuping[all]). Run as root. It may be run again: it upgrades the
# units and leaves identities, credentials, tokens and settings alone.
set -eu
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
PATH=/opt/gpuping/bin:$PATH SETUP_ROOT=$etc SETUP_TRUST_DIR=$etc/trust HOME=${HOME:-/root} sh "$here/../first-start.sh"
chown -R gpuping:gpuping $etc/trust $etc/tokens $etc/alerts
install -d -m 700 -o gpuping-enrolment -g gpuping-enrolment /var/lib/gpuping-enrolment
cp -R $etc/creds/enrolment/identity /var/lib/gpuping-enrolment/
chown -R gpuping-enrolment:gpuping-enrolment /var/lib/gpuping-enrolment
install -m 644 "$here/../nats.conf" $etc/nats.conf
[ -e $etc/server.env ] || printf '# settings of all services, such as PING_BASE_INTERVAL_MINUTES=15\nNATS_URL=tls://127.0.0.1:4222\nNATS_PUBLIC_URL=%s\n' "$NATS_PUBLIC_URL" > $etc/server.env
install -m 644 "$here"/gpuping-*.service /etc/systemd/system/
systemctl daemon-reload
systemctl enable gpuping-nats gpuping-layout gpuping-scheduler gpuping-storage gpuping-gateway gpuping-enrolment gpuping-alerts
systemctl restart gpuping-nats gpuping-layout gpuping-scheduler gpuping-storage gpuping-gateway gpuping-enrolment gpuping-alerts
