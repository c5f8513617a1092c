// Imports an adapter: sends the form to the API, then shows what became of it.
"use strict";

(() => {
  const form = document.getElementById("import");
  const [said, problem, send] = ["import-said", "import-problem", "import-send"].map((id) => document.getElementById(id));
  const pause = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));

  async function ended(made) {
    while (!["succeeded", "failed"].includes(made.status)) {
      said.textContent = `The import is ${made.status.replaceAll("_", " ")}. An engine must agree with the adapter; the page may be left.`;
      await pause(2000);
      made = await (await callApi(`/v1/model_imports/${made.id}`)).json();
    }
    return made;
  }

  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    problem.textContent = "";
    said.textContent = "Sending…";
    send.disabled = true;
    try {
      const fields = new FormData(form);
      if (!fields.get("suffix")) fields.delete("suffix");
      const made = await ended(await (await callApi("/v1/models", { method: "POST", body: fields })).json());
      if (made.error) throw new Error(made.error.message);
      location.reload();
    } catch (error) {
      said.textContent = "";
      problem.textContent = error.message;
    } finally {
      send.disabled = false;
    }
  });
})();
