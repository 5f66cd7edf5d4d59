#!/usr/bin/env bash
# Builds the wheel, installs it into an environment of its own and runs it in an empty folder, far from the checkout.
#
#     tests/wheel_check.sh PYTHON            dependencies are those of PYTHON's environment: a minute
#     tests/wheel_check.sh PYTHON --empty    dependencies are installed afresh, as a user's would be: before a release
set -euo pipefail

python=$(realpath -s "$1")
checkout=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

"$python" -m pip wheel --quiet --no-deps --wheel-dir "$folder" "$checkout"
"$python" -m venv "$folder/venv"
if [ "${2:-}" = --empty ]; then
    "$folder/venv/bin/python" -m pip install --quiet "$folder"/*.whl
else
    "$folder/venv/bin/python" -m pip install --quiet --no-deps "$folder"/*.whl
    site=$("$folder/venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
    "$python" -c 'import torch, pathlib; print(pathlib.Path(torch.__file__).parents[1])' > "$site/dependencies.pth"
fi

mkdir "$folder/empty"
cd "$folder/empty"
"$folder/venv/bin/python" - "$folder/venv" <<'CHECK'
import sys
import cl, reports, strategies, streams

for package in (cl, strategies, streams, reports):
    assert package.__file__.startswith(sys.argv[1]), f"{package.__name__} comes from {package.__file__}"
CHECK
"$folder/venv/bin/palimpsest" run split-digits ease --preset quick
"$folder/venv/bin/palimpsest" store verify
"$folder/venv/bin/palimpsest" new strategy my-means
PYTHONPATH=my-means "$folder/venv/bin/palimpsest" run split-digits my_means:MyMeans
echo "The wheel works on its own."
