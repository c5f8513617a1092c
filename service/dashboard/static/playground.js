// Asks two models the same, streams both, and shows how likely each token was.
"use strict";

(() => {
  const form = document.getElementById("ask");
  const value = (id) => document.getElementById(id).value;
  const stop = document.getElementById("stop");
  const send = document.getElementById("send");
  let running = null;

  function body(model) {
    const messages = [{ role: "user", content: value("message") }];
    if (value("system").trim()) messages.unshift({ role: "system", content: value("system") });
    const asked = { model, messages, stream: true, stream_options: { include_usage: true } };
    for (const name of ["temperature", "max_tokens"]) {
      if (value(name)) asked[name] = Number(value(name));  // left empty, it is for the API to choose
    }
    if (document.getElementById("logprobs").checked) Object.assign(asked, { logprobs: true, top_logprobs: 3 });
    return asked;
  }

  /** The objects of a stream of server-sent events. */
  async function* objects(response) {
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "";
    for (;;) {
      const { value: text, done } = await reader.read();
      if (done) return;
      const lines = (rest + text).split("\n");
      rest = lines.pop();
      for (const line of lines) {
        if (line.startsWith("data: ") && line !== "data: [DONE]") yield JSON.parse(line.slice(6));
      }
    }
  }

  const percent = (logprob) => `${(100 * Math.exp(logprob)).toFixed(1)} %`;

  function token(entry) {
    const piece = document.createElement("span");
    piece.className = `token p${Math.min(4, Math.floor(5 * Math.exp(entry.logprob)))}`;
    piece.textContent = entry.token;
    const others = (entry.top_logprobs ?? []).map((other) => `${JSON.stringify(other.token)} ${percent(other.logprob)}`);
    piece.title = [`${JSON.stringify(entry.token)} ${percent(entry.logprob)} (${entry.logprob.toFixed(3)})`, ...others].join("\n");
    return piece;
  }

  async function ask(side, signal) {
    const model = value(`model-${side.dataset.side}`);
    const [answer, facts] = [side.querySelector(".answer"), side.querySelector(".facts-line")];
    answer.replaceChildren();
    answer.classList.add("busy");
    facts.textContent = "Waiting…";
    const started = performance.now();
    let first = 0, usage = null, reason = "";
    try {
      const response = await callApi("/v1/chat/completions", { method: "POST", signal, headers: { "Content-Type": "application/json" }, body: JSON.stringify(body(model)) });
      for await (const chunk of objects(response)) {
        if (chunk.error) throw new Error(chunk.error.message);
        usage = chunk.usage ?? usage;
        const choice = chunk.choices?.[0];
        if (!choice) continue;
        reason = choice.finish_reason ?? reason;
        const entries = choice.logprobs?.content ?? [];
        if (choice.delta.content || entries.length) first ||= performance.now() - started;
        if (entries.length) answer.append(...entries.map(token));
        else if (choice.delta.content) answer.append(choice.delta.content);
      }
      const seconds = (performance.now() - started) / 1000;
      const said = [`${(first / 1000).toFixed(2)} s to the first token`, `${seconds.toFixed(2)} s in all`];
      if (usage) said.unshift(`${usage.completion_tokens} tokens`);
      if (reason === "length") said.push("ended by the limit");
      facts.textContent = said.join(" · ");
    } catch (error) {
      facts.textContent = signal.aborted ? "Stopped." : "";
      if (!signal.aborted) {
        const problem = document.createElement("p");
        problem.className = "problem";
        problem.setAttribute("role", "alert");
        problem.textContent = error.message;
        answer.append(problem);
      }
    } finally {
      answer.classList.remove("busy");
    }
  }

  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    running?.abort();
    running = new AbortController();
    const { signal } = running;
    stop.hidden = false;
    send.disabled = true;
    await Promise.all([...document.querySelectorAll("[data-side]")].map((side) => ask(side, signal)));
    stop.hidden = true;
    send.disabled = false;
  });
  stop.addEventListener("click", () => running?.abort());
  form.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) form.requestSubmit();
  });
})();
