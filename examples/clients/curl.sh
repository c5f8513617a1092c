#!/usr/bin/env bash
# The whole journey with curl: a file, a job, a tuned answer, and what it made deleted again.
#
#     export OPENAI_BASE_URL=http://127.0.0.1:8000/v1 OPENAI_API_KEY=...     (`luthierd up` prints both)
#     examples/clients/curl.sh
set -euo pipefail
cd "$(dirname "$0")"

call() { # path, then further options of curl
  curl -sS --fail-with-body "$OPENAI_BASE_URL/$1" -H "Authorization: Bearer $OPENAI_API_KEY" "${@:2}"
}
post() { # path, JSON
  call "$1" -H "Content-Type: application/json" -d "$2"
}
field() { # a Python expression of `it`, the JSON object on stdin
  python3 -c 'import json, sys; it = json.load(sys.stdin); print(eval(sys.argv[1]))' "$1"
}
ask() { # model
  post chat/completions '{"model": "'"$1"'", "temperature": 0, "max_tokens": 16,
    "messages": [{"role": "user", "content": "Do you post instruments to Norway?"}]}' |
    field 'it["model"] + ": " + it["choices"][0]["message"]["content"]'
}

file=$(call files -F purpose=fine-tune -F file=@../demo/training.jsonl | field 'it["id"]')
job=$(post fine_tuning/jobs '{"model": "luthier-tiny", "training_file": "'"$file"'", "suffix": "curl",
  "method": {"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 6, "batch_size": 8}}}}' |
  field 'it["id"]')

# Every event as it is written, until the job has ended; without `stream` the same path lists them.
call "fine_tuning/jobs/$job/events?stream=true" --no-buffer --max-time 86400 | sed -n 's/.*"message":"\([^"]*\)".*/\1/p'
status=$(call "fine_tuning/jobs/$job" | field 'it["status"]')
[[ $status == succeeded ]] || { call "fine_tuning/jobs/$job"; exit 1; }
tuned=$(call "fine_tuning/jobs/$job" | field 'it["fine_tuned_model"]')
result=$(call "fine_tuning/jobs/$job" | field 'it["result_files"][0]')

ask luthier-tiny
ask "$tuned"

echo "models: $(call models | field '" ".join(model["id"] for model in it["data"])')"
echo "checkpoints: $(call "fine_tuning/jobs/$job/checkpoints" | field '" ".join(str(at["step_number"]) for at in it["data"])')"
echo "result: $(call "files/$result/content" | base64 --decode | sed -n 1p)"

# The last checkpoint is the tuned model itself. Jobs stay: OpenAI's API deletes none.
made=$(call "fine_tuning/jobs/$job/checkpoints" | field '" ".join(at["fine_tuned_model_checkpoint"] for at in it["data"])')
for name in $made; do call "models/$name" -X DELETE >/dev/null; done
for id in $file $result; do call "files/$id" -X DELETE >/dev/null; done
echo "deleted: $made $file $result"
