// What every page does: copy buttons, selects that submit, local times, and the CSRF token for calls of the API.
"use strict";

document.documentElement.classList.add("scripted");

/** Calls the API for the person who is signed in; `path` begins with /v1. Throws what the error says. */
async function callApi(path, options = {}) {
  const headers = { "X-CSRF-Token": document.body.dataset.csrf, ...options.headers };
  const response = await fetch("/ui" + path, { ...options, headers });
  if (response.status === 401) {
    location.assign("/ui/sign-in?ended=1&next=" + encodeURIComponent(location.pathname));
    throw new Error("Your sign-in has ended.");
  }
  if (!response.ok) {
    const said = await response.json().catch(() => ({}));
    throw new Error(said.error?.message ?? `The service responded with ${response.status}.`);
  }
  return response;
}

function announce(text) {
  const announcer = document.getElementById("announcer");
  if (announcer) announcer.textContent = text;
}

async function copy(button) {
  const text = document.getElementById(button.dataset.copies).textContent.trim();
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    const range = document.createRange();  // without permission, or over plain HTTP: select it instead
    range.selectNodeContents(document.getElementById(button.dataset.copies));
    getSelection().removeAllRanges();
    getSelection().addRange(range);
    announce("Selected; copy it with the keyboard.");
    return;
  }
  const label = button.textContent;
  button.textContent = "Copied";
  announce("Copied.");
  setTimeout(() => { button.textContent = label; }, 1500);
}

function makeTimesLocal(root) {
  for (const time of root.querySelectorAll("time[datetime]")) {
    const moment = new Date(time.dateTime);
    time.title = moment.toLocaleString();
    if (time.closest(".events")) {
      time.textContent = moment.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", second: "2-digit", hour12: false });
    }
  }
}

document.addEventListener("click", (event) => {
  const button = event.target.closest("[data-copies]");
  if (button) copy(button);
});
document.addEventListener("change", (event) => {
  if (event.target.matches("[data-submits]")) event.target.form.requestSubmit();
});
document.addEventListener("htmx:afterSwap", (event) => makeTimesLocal(event.target.parentElement ?? document));
makeTimesLocal(document);
document.querySelector(".side nav [aria-current]")?.scrollIntoView({ block: "nearest", inline: "nearest" });
