#!/usr/bin/env bash
# Tunes BASE on a file with curl and jq alone: LUTHIER_URL=... LUTHIER_API_KEY=... tune.sh FILE BASE. See docs/ci.md.
set -euo pipefail
call() {
  body=$(curl --silent --show-error --fail-with-body -H "Authorization: Bearer $LUTHIER_API_KEY" "$@") || { echo "$body" >&2; return 1; }
  echo "$body"
}
api=${LUTHIER_URL%/}/v1
file=$(call "$api/files" -F purpose=fine-tune -F "file=@$1" | jq -r .id)
job=$(jq -n --arg file "$file" --arg base "$2" '{training_file: $file, model: $base}' |
  call "$api/fine_tuning/jobs" -H "Content-Type: application/json" -d @- | jq -r .id)
while status=$(call "$api/fine_tuning/jobs/$job" | jq -r .status); do
  case $status in succeeded | failed | cancelled) break ;; esac
  sleep "${POLL_SECONDS:-5}"
done
call "$api/fine_tuning/jobs/$job" | jq '{id, status, fine_tuned_model, error}'
[ "$status" = succeeded ]
