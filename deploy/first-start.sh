#!/bin/sh
# The one-shot service `setup` of compose.yaml: makes what a first start needs, and leaves alone what is there.
#
#   /identity   the authority of the fleet, with its secret keys: mounted here only
#   /trust      what nats-server needs: whom to believe, and its TLS certificate and key
#   /creds      the credentials of each service, in a folder each: a service mounts its own
#   /alerts     whom to tell what goes wrong: an empty alerts file at first
#   /tokens     hashes of the tokens of the REST interface; the first token is printed once
#   /scrape     where it is mounted: the token that Prometheus sends, and the password of Grafana's administrator
#   /data       where it is mounted: the streams of nats-server, for a version without identities has left them there
set -eu
umask 077
root=${SETUP_ROOT:-}

# The bus speaks TLS only. The certificate is for these names; NATS_PUBLIC_URL is where GPU hosts reach the bus.
# To use your own: `gpuping creds init --data-dir /identity --tls-cert FILE --tls-key FILE`.
names=${SETUP_BUS_NAMES:-nats,localhost}
public=$(echo "${NATS_PUBLIC_URL:-}" | tr ',' '\n' | sed -e 's|.*://||' -e 's|/.*||' -e 's|:[0-9]*$||' | paste -sd ,)
[ -z "$public" ] || names=$names,$public
tls=$root/identity/identity/tls
if [ ! -e "$root/identity/identity/fleet.json" ]; then
  gpuping creds init --data-dir "$root/identity" --resolver-dir "${SETUP_RESOLVER_DIR:-/data/resolver}" \
    --tls-names "$names" > /dev/null
  echo "$names" > "$tls/names"
  echo "made the identities of this fleet in $root/identity (with compose the volume identity): back them up apart from the data"
elif [ ! -e "$tls/server.pem" ] && [ -e "$root/trust/server.pem" ]; then
  # of a version that made a certificate without an authority: hosts that joined then believe it
  gpuping creds init --data-dir "$root/identity" --tls-cert "$root/trust/server.pem" \
    --tls-key "$root/trust/server.key" > /dev/null
elif [ ! -e "$tls/server.pem" ] || { [ -e "$tls/ca.pem" ] && [ "$names" != "$(cat "$tls/names" 2> /dev/null)" ]; }; then
  gpuping creds init --data-dir "$root/identity" --tls-names "$names" > /dev/null
  echo "$names" > "$tls/names"
fi
# Streams of a version without identities: the account of this fleet takes them over, once, while no server runs.
store=${SETUP_STORE_DIR:-$root/data/jetstream}
if [ -d "$store/jetstream/\$G" ] || [ -d "$store/jetstream/GPUPING" ]; then
  if python3 -c 'import socket, sys; socket.create_connection((sys.argv[1], 4222), 3)' "${names%%,*}" 2> /dev/null; then
    echo "the nats-server of the version before still runs: docker compose stop, then start again" >&2
    exit 1
  fi
  gpuping bus take-over --store-dir "$store" --data-dir "$root/identity"
fi
# the permissions of this version
changed=$(gpuping creds config --data-dir "$root/identity" --resolver-dir "${SETUP_RESOLVER_DIR:-/data/resolver}")
cp "$tls/server.pem" "$tls/server.key" "$root/trust/"
authority=$tls/server.pem
[ ! -e "$tls/ca.pem" ] || authority=$tls/ca.pem
cp "$authority" "$root/trust/ca.pem"
{
  cat "$root/identity/identity/server.conf"
  echo 'tls { cert_file: "'"${SETUP_TRUST_DIR:-/etc/gpuping/trust}"'/server.pem", key_file: "'"${SETUP_TRUST_DIR:-/etc/gpuping/trust}"'/server.key" }'
} > "$root/trust/server.conf"

roles="layout scheduler storage gateway enrolment alerts bridge operator"
case $changed in wrote*) needed=yes ;; *) needed= ;; esac
for role in $roles; do
  mkdir -p "$root/creds/$role"
  [ -e "$root/creds/$role/$role.creds" ] || needed=yes
done
if [ -n "$needed" ]; then
  for role in $roles; do
    [ ! -e "$root/creds/$role/$role.creds" ] || mv "$root/creds/$role/$role.creds" "$root/creds/"
  done
  # shellcheck disable=SC2086  # several words
  gpuping creds service $roles --if-needed --data-dir "$root/identity" -o "$root/creds" > /dev/null
fi
for role in $roles; do
  [ ! -e "$root/creds/$role.creds" ] || mv "$root/creds/$role.creds" "$root/creds/$role/"
  cp "$authority" "$root/creds/$role/ca.pem"
done
# The enrolment service signs for agents and for hosts with a token, and for nobody else.
mkdir -p "$root/creds/enrolment/identity/signing"
for role in agent bootstrap; do
  cp "$root/identity/identity/signing/$role.seed" "$root/creds/enrolment/identity/signing/"
done
cp "$root/identity/identity/fleet.json" "$root/creds/enrolment/identity/"
cp "$root/identity/identity/system-scheduler.creds" "$root/creds/scheduler/system.creds"
# whether reports must be signed: of a fleet of before identities they need not be (GPUPING_REQUIRE_SIGNED)
cp "$root/identity/identity/fleet.json" "$root/creds/scheduler/fleet.json"
# A gateway uses them only where GATEWAY_BRIDGE_NETWORKS is set.
cp "$root/creds/bridge/bridge.creds" "$root/creds/gateway/bridge.creds"

if [ ! -e "$root/alerts/alerts.toml" ]; then
  mkdir -p "$root/alerts"
  echo '# whom to tell what goes wrong: see docs/alerts.md and `gpuping alerts --help`' > "$root/alerts/alerts.toml"
fi

if [ ! -e "$root/tokens/tokens.toml" ]; then
  echo "the administrator's token for http://127.0.0.1:${GATEWAY_PORT:-8000}/ (shown once):"
  gpuping token admin --role admin --file "$root/tokens/tokens.toml"
fi

if [ -d "$root/scrape" ] && [ ! -e "$root/scrape/token" ]; then
  gpuping token prometheus --role viewer --file "$root/tokens/tokens.toml" > "$root/scrape/token.new" 2> /dev/null
  python3 -c 'import secrets; print(secrets.token_urlsafe(18), end="")' > "$root/scrape/grafana-password"
  chmod 644 "$root/scrape/token.new" "$root/scrape/grafana-password"
  mv "$root/scrape/token.new" "$root/scrape/token"
  echo "the password of Grafana's user admin, with the profile observe: $(cat "$root/scrape/grafana-password")"
fi
