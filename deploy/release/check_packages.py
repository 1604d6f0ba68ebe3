"""`python check_packages.py FOLDER`: the wheel and the sdist of a folder contain what they must."""

import sys
import tarfile
import zipfile
from pathlib import Path

NEEDED = (
    "gateway/static/index.html",
    "gateway/static/built/index.html",
    "gateway/static/built/map.html",
    "gateway/static/vendor/htm-preact.js",
    "gateway/static/vendor/swagger-ui-bundle.js",
    "storage/engine/schema.sql",
    "agentd/scenarios/flapping.toml",
    "agentd/host/gpuping-agentd.service",
    "bus/monitoring/http_server.py",
)
UNWANTED = ("tests/", "bench/", "node_modules/")
SECRET_ENDINGS = (".seed", ".creds", ".nk", ".key", ".pem", ".env", "tokens.toml")


def main(folder: Path) -> int:
    """Prints what is wrong. Returns 1 where something is."""
    wheels = list(folder.glob("*.whl"))
    archives = list(folder.glob("*.tar.gz"))
    if len(wheels) != 1 or len(archives) != 1:
        print(f"{folder}: expected one wheel and one sdist")
        return 1
    with zipfile.ZipFile(wheels[0]) as wheel:
        names = set(wheel.namelist())
    with tarfile.open(archives[0]) as archive:
        in_archive = {name.partition("/")[2] for name in archive.getnames()}
    wrong = [f"{wheels[0].name} lacks {name}" for name in NEEDED if name not in names]
    wrong += [f"{archives[0].name} lacks {name}" for name in NEEDED if name not in in_archive]
    for name in names:
        if name.startswith(UNWANTED):
            wrong.append(f"{wheels[0].name} contains {name}")
    for package, contained in ((wheels[0], names), (archives[0], in_archive)):
        for name in contained:
            if name.endswith(SECRET_ENDINGS):
                wrong.append(f"{package.name} contains {name}")
    print("\n".join(wrong), end="\n" if wrong else "")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
