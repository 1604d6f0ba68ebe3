#!/bin/sh
# The one-shot service `setup` of compose.yaml: makes what a first start needs, and leaves alone what is there.
#
#   /identity   the authority of the fleet, with its secret keys: mounted here only
#   /trust      what nats-server needs: whom to believe, and its TLS certificate and key
#   /creds      the credentials of each service, in a folder each: a service mounts its own
#   /tokens     hashes of the tokens of the REST interface; the first token is printed once
set -eu
umask 077
root=${SETUP_ROOT:-}

if [ ! -e "$root/identity/identity/fleet.json" ]; then
  gpuping creds init --data-dir "$root/identity" --resolver-dir "${SETUP_RESOLVER_DIR:-/data/resolver}" > /dev/null
  echo "made the identities of this fleet (volume identity): back them up apart from the data"
fi

# Credentials travel over TLS only. The certificate is for this installation alone; replace it by your own.
if [ ! -e "$root/trust/server.pem" ]; then
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 3650 -subj "/CN=gpuping bus" \
    -addext "subjectAltName=DNS:nats,DNS:localhost,IP:127.0.0.1" \
    -keyout "$root/trust/server.key" -out "$root/trust/server.pem" 2> /dev/null
fi
{
  cat "$root/identity/identity/server.conf"
  echo 'tls { cert_file: "'"${SETUP_TRUST_DIR:-/etc/gpuping/trust}"'/server.pem", key_file: "'"${SETUP_TRUST_DIR:-/etc/gpuping/trust}"'/server.key" }'
} > "$root/trust/server.conf"

for role in layout scheduler storage gateway enrolment operator; do
  mkdir -p "$root/creds/$role"
  if [ ! -e "$root/creds/$role/$role.creds" ]; then
    gpuping creds service "$role" --data-dir "$root/identity" -o "$root/creds/$role/$role.creds" > /dev/null
  fi
  cp "$root/trust/server.pem" "$root/creds/$role/ca.pem"
done
cp "$root/identity/identity/system.creds" "$root/creds/scheduler/system.creds"

if [ ! -e "$root/tokens/tokens.toml" ]; then
  echo "the administrator's token for http://127.0.0.1:${GATEWAY_PORT:-8000}/ (shown once):"
  gpuping token admin --role admin --file "$root/tokens/tokens.toml"
fi
