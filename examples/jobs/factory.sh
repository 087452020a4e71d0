#!/bin/sh
# A factory that runs a job's body as a script: fleet-node work --capabilities shell -- ./factory.sh
set -eu
cd "${FLEET_META_CWD:-.}" || exit 78
exec sh -eu "$FLEET_BODY_FILE"
