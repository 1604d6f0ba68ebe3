#!/bin/sh
# Makes dist/ of the version in pyproject.toml: wheel, sdist, gpuping-agentd, a list of components (CycloneDX), the
# changelog's section of this version, and checksums. Run by `make release`; it changes nothing outside dist/.
set -eu
python=$VENV/release/bin/python
version=$("$python" -c 'import tomllib; print(tomllib.load(open("pyproject.toml", "rb"))["project"]["version"])')
fail() { echo "make release: $1" >&2; exit 1; }

[ -z "$(git status --porcelain)" ] || fail "the working tree has changes: commit or remove them first"
in_code=$("$python" -c 'from bus.transport.micro_services import VERSION; print(VERSION)')
[ "$in_code" = "$version" ] || fail "pyproject.toml says $version and bus/transport/micro_services.py says $in_code"
grep -q "^  image: gpuping:.*$version}" compose.yaml || fail "compose.yaml does not name the image of version $version"
"$python" deploy/release/needed_programs.py

rm -rf dist
mkdir dist
# The section of this version in the changelog, as notes of the release.
section() { awk -v name="$1" '/^## \[/ { inside = index($0, "## [" name "]") == 1; next } inside' CHANGELOG.md; }
section "$version" > dist/CHANGELOG-"$version".md
[ -s dist/CHANGELOG-"$version".md ] || fail "CHANGELOG.md has no section [$version]: rename [Unreleased] to it, with the date"

"$python" -m build --no-isolation --outdir dist . > /dev/null
"$python" deploy/release/check_packages.py dist
sh deploy/release/agentd-binary.sh
"$VENV"/release/bin/cyclonedx-py requirements --pyproject pyproject.toml --output-format JSON --output-reproducible \
  --output-file dist/gpuping-"$version".cdx.json requirements.txt
(cd dist && sha256sum -- * > SHA256SUMS)
echo "dist/ of version $version:"
cat dist/SHA256SUMS
