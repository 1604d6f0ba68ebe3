#!/bin/sh
# Makes dist/gpuping-agentd, one file with agentd and the Python that it needs. Run by `make agentd-binary`.
set -eu
python=$VENV/release/bin/python
"$python" deploy/release/needed_programs.py
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# Parts of the server side are left out: agentd imports none of them, and the commands say what is missing.
"$python" -m PyInstaller --onefile --name gpuping-agentd --log-level ERROR --noconfirm --strip \
  --paths . --specpath "$work" --workpath "$work" --distpath dist \
  --add-data "$PWD/agentd/scenarios:agentd/scenarios" --add-data "$PWD/agentd/host:agentd/host" \
  --hidden-import _cffi_backend --exclude-module scheduler --exclude-module storage --exclude-module gateway --exclude-module bench \
  --exclude-module tests --exclude-module pyexpat --exclude-module xml --exclude-module sqlite3 --exclude-module tkinter \
  gpuping/standalone.py
dist/gpuping-agentd --version > /dev/null
echo "dist/gpuping-agentd: $(du -h dist/gpuping-agentd | cut -f1), $(dist/gpuping-agentd --version)"
"$python" deploy/release/needed_glibc.py dist/gpuping-agentd
