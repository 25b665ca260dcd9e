#!/bin/sh
# The test of an operation in the Oclgrind simulator, which sees what no device reports: accesses outside of a buffer,
# data races, divergent barriers. It exits 0 whatever it finds, so that its log decides.
#     oclgrind.sh LIBRARY COMMAND...      LIBRARY: Oclgrind as an OpenCL driver, liboclgrind-rt-icd.so
set -eu
library=$1
shift
if [ ! -f "$library" ]; then
    echo "skipped: Oclgrind is not installed (Debian: apt install oclgrind)"
    exit 77
fi
directory=$(mktemp -d)
trap 'rm -rf "$directory"' EXIT
echo "$library" >"$directory/oclgrind.icd"
status=0
# CLDSA_DEVICE makes sure that it is Oclgrind which runs the kernels. Optimised code has vector instructions that it
# does not know or gets wrong.
OCL_ICD_VENDORS=$directory OCLGRIND_DATA_RACES=1 OCLGRIND_LOG=$directory/log CLDSA_DEVICE=oclgrind \
    CLDSA_CACHE_DIR=$directory/cache OCLGRIND_BUILD_OPTIONS='-cl-opt-disable -DNO_PREFETCH' \
    CLDSA_TEST_WORK=${CLDSA_TEST_WORK:-100000} "$@" || status=$?
if [ -s "$directory/log" ]; then
    echo "Oclgrind reports:"
    head -n 100 "$directory/log"
    exit 1
fi
exit "$status"
