"""One peer of `benchmarks.engine`, in an environment of its own: `PYTHON FILE vllm FOLDER` or `... llama.cpp GGUF`.

Reads requests as JSON, one a line, and writes what each cost of processor time. Greedy, float32, one thread; nothing of
earlier prompts is kept. llama.cpp keeps keys and values in float16, as by default: in float32 it is slower.
Started by `benchmarks.engine_peers`; imports nothing of the project.
"""

import json
import os
import re
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

ROWS = 16
CONTEXT = 512
Ids = Sequence[Sequence[int]]
Generate = Callable[[Ids, int], Ids]


def main(kind: str, model: str) -> None:
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1)
    os.dup2(2, 1)  # what libraries print
    about, generate = {"vllm": vllm, "llama.cpp": llama_cpp}[kind](model)
    replies.write(json.dumps({"about": about}) + "\n")
    for line in sys.stdin:
        request = json.loads(line)
        prompts, tokens = request["prompts"], request["tokens"]
        generate(prompts, 1)  # the first one allocates
        began = time.process_time()
        generate(prompts, 1)
        between = time.process_time()
        ids = generate(prompts, tokens)
        ended = time.process_time()
        one = between - began
        replies.write(json.dumps({"prompts": one, "tokens": ended - between - one, "ids": ids}) + "\n")


def vllm(folder: str) -> tuple[str, Generate]:
    core = min(os.sched_getaffinity(0))
    os.environ |= {
        "VLLM_CPU_OMP_THREADS_BIND": str(core), "OMP_NUM_THREADS": "1", "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_LOGGING_LEVEL": "ERROR", "VLLM_PLUGINS": "", "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1", "HF_HUB_OFFLINE": "1",
    }  # fmt: skip
    import vllm  # noqa: PLC0415
    from vllm.inputs import TokensPrompt  # noqa: PLC0415

    engine: Any = vllm.LLM(
        model=folder, skip_tokenizer_init=True, dtype="float32", enforce_eager=True, max_model_len=CONTEXT,
        max_num_seqs=ROWS, enable_prefix_caching=False, distributed_executor_backend="uni",
    )  # fmt: skip

    def generate(prompts: Ids, tokens: int) -> Ids:
        sampling = vllm.SamplingParams(temperature=0, max_tokens=tokens, ignore_eos=True, detokenize=False)
        given = [TokensPrompt(prompt_token_ids=list(ids)) for ids in prompts]
        return [list(one.outputs[0].token_ids) for one in engine.generate(given, sampling, use_tqdm=False)]

    return f"vLLM {vllm.__version__}", generate


def llama_cpp(file: str) -> tuple[str, Generate]:
    import xllamacpp  # noqa: PLC0415

    params: Any = xllamacpp.CommonParams()
    params.model.path, params.verbosity = file, -1
    params.n_parallel, params.n_ctx = ROWS, ROWS * CONTEXT
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
    params.kv_unified = True  # 16 rows in parts of their own took three times as long
    server: Any = xllamacpp.Server(params)

    def generate(prompts: Ids, tokens: int) -> Ids:
        body = {"prompt": prompts, "max_tokens": tokens, "temperature": 0, "ignore_eos": True, "cache_prompt": False}
        found = server.handle_completions(body)
        # a token's text is its number (`benchmarks.llama_gguf`)
        by_row = sorted(found["choices"], key=lambda one: int(one["index"]))
        return [[int(number) for number in re.findall(r"t(\d+)", one["text"])] for one in by_row]

    abilities = re.findall(r"(AVX\w*|AMX\w*) = 1", xllamacpp.get_system_info())
    return f"llama.cpp of xllamacpp {xllamacpp.__version__} ({', '.join(abilities)})", generate


if __name__ == "__main__":
    main(*sys.argv[1:])
