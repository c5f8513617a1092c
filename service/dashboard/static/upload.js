// Uploads with a bar, by choosing a file or dropping one; the API receives it as from any client.
"use strict";

(() => {
  const form = document.getElementById("upload");
  const [input, bar, problem] = ["file", "upload-progress", "upload-problem"].map((id) => document.getElementById(id));

  function send(file) {
    problem.textContent = "";
    if (file.size > Number(form.dataset.limit)) {
      problem.textContent = "This file is too large for one upload. The command luthier sends it in parts: luthier files upload FILE";
      return;
    }
    const fields = new FormData();
    fields.append("purpose", "fine-tune");
    fields.append("file", file);
    const request = new XMLHttpRequest();  // fetch reports no progress of what it sends
    request.open("POST", "/ui/v1/files");
    request.setRequestHeader("X-CSRF-Token", document.body.dataset.csrf);
    request.responseType = "json";
    bar.hidden = false;
    request.upload.addEventListener("progress", (event) => { bar.value = 100 * event.loaded / event.total; });
    request.addEventListener("load", () => {
      if (request.status === 200) {
        announce("Uploaded.");
        location.assign(form.dataset.next + request.response.id);
      } else if (request.status === 401) {
        signInAgain();
      } else {
        fail(request.response?.error?.message ?? `The service responded with ${request.status}.`);
      }
    });
    request.addEventListener("error", () => fail("The connection broke off. Try again."));
    request.send(fields);
  }

  function fail(text) {
    bar.hidden = true;
    problem.textContent = text;
    input.value = "";
  }

  input.addEventListener("change", () => { if (input.files.length) send(input.files[0]); });
  for (const name of ["dragenter", "dragover"]) {
    form.addEventListener(name, (event) => { event.preventDefault(); form.classList.add("over"); });
  }
  for (const name of ["dragleave", "drop"]) form.addEventListener(name, () => form.classList.remove("over"));
  form.addEventListener("drop", (event) => {
    event.preventDefault();
    if (event.dataTransfer.files.length) send(event.dataTransfer.files[0]);
  });
})();
