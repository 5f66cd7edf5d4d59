#!/usr/bin/env bash
# The demo's second half: one person's samples are deleted from an EASE run on real digits, in a home of its own; verified
# against cold oracles, with the certificate in FOLDER/certificate.html.
#
#     tests/demo_deletion.sh PALIMPSEST FOLDER
set -euo pipefail

palimpsest=$1 folder=$2
export PALIMPSEST_HOME="$folder/deletion-home"
field() { sed -n "s/.*\"$1\": \"\([^\"]*\)\".*/\1/p"; }

echo "One person's samples (synthetic subjects on real images) are deleted from an EASE run ..."
run=$("$palimpsest" run split-digits ease --preset quick --json | field run)
request=$("$palimpsest" forget execute "$run" --subject person-007 --reason demo --yes --json | field request)
"$palimpsest" forget verify "$request"
"$palimpsest" forget certify "$request" --out "$folder"
mv "$folder/certificate-$request.html" "$folder/certificate.html"
