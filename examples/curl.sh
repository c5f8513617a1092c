#!/usr/bin/env bash
# The whole journey with curl: a file, a job, a tuned answer.
#
#     export OPENAI_BASE_URL=http://127.0.0.1:8000/v1 OPENAI_API_KEY=...     (`luthierd up` prints both)
#     examples/curl.sh
set -euo pipefail
cd "$(dirname "$0")"

call() { # path, then further options of curl
  curl -sS --fail-with-body "$OPENAI_BASE_URL/$1" -H "Authorization: Bearer $OPENAI_API_KEY" "${@:2}"
}
post() { # path, JSON
  call "$1" -H "Content-Type: application/json" -d "$2"
}
field() { # the value of one field of the JSON object on stdin
  python3 -c 'import json, sys; print(json.load(sys.stdin)[sys.argv[1]])' "$1"
}
ask() { # model
  post chat/completions '{"model": "'"$1"'", "temperature": 0, "max_tokens": 16,
    "messages": [{"role": "user", "content": "Do you post instruments to Norway?"}]}'
  echo
}

file=$(call files -F purpose=fine-tune -F file=@demo/training.jsonl | field id)
job=$(post fine_tuning/jobs '{"model": "luthier-tiny", "training_file": "'"$file"'",
  "method": {"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 6, "batch_size": 8}}}}' | field id)

while true; do
  status=$(call "fine_tuning/jobs/$job" | field status)
  echo "$job $status"
  [[ $status =~ ^(succeeded|failed|cancelled)$ ]] && break
  sleep 5
done
call "fine_tuning/jobs/$job/events?limit=3"
echo

ask luthier-tiny
ask "$(call "fine_tuning/jobs/$job" | field fine_tuned_model)"
