// What every page does: copy buttons, questions before forms, selects that submit, local times, what went wrong, and the
// CSRF token for calls of the API.
"use strict";

document.documentElement.classList.add("scripted");

/** Calls the API for the person who is signed in; `path` begins with /v1. Throws what the error says. */
const callApi = (path, options = {}) => call("/ui" + path, options);

/** Asks a page or the API for something, in the project of this page. Throws what the error says. */
async function call(address, options = {}) {
  const headers = { "X-CSRF-Token": document.body.dataset.csrf, ...options.headers };
  const response = await fetch(address, { ...options, headers });
  if (response.status === 401) {
    signInAgain();
    throw new Error("Your sign-in has ended.");
  }
  if (!response.ok) {
    const said = await response.json().catch(() => ({}));
    throw new Error(said.error?.message ?? `The service responded with ${response.status}.`);
  }
  return response;
}

/** Leads to the form and back to this page, with what was typed into its forms that are marked `data-kept`. */
function signInAgain() {
  for (const form of document.querySelectorAll("form[data-kept]")) {
    const values = [...form.elements].filter((one) => one.id).map((one) => [one.id, one.value, one.checked]);
    sessionStorage.setItem(`kept:${form.id}`, JSON.stringify(values));
  }
  location.assign("/ui/sign-in?ended=1&next=" + encodeURIComponent(location.pathname + location.search));
}

function restoreKept() {
  for (const form of document.querySelectorAll("form[data-kept]")) {
    for (const [id, value, checked] of JSON.parse(sessionStorage.getItem(`kept:${form.id}`) ?? "[]")) {
      const one = document.getElementById(id);
      if (one?.type === "checkbox") one.checked = checked;
      else if (one) one.value = value;
    }
    sessionStorage.removeItem(`kept:${form.id}`);
  }
}

/** Says at the top what went wrong with a part of the page, until that part works again. */
function showProblem(text, part) {
  const problem = document.getElementById("page-problem");
  if (!text && problem.dataset.part !== part) return;
  problem.textContent = text;
  problem.dataset.part = part;
  problem.hidden = !text;
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
document.addEventListener("submit", (event) => {
  const { confirms } = event.target.dataset;
  if (confirms && !confirm(confirms)) event.preventDefault();
});
const partOf = (event) => event.detail.requestConfig.path.split("?")[0];
document.addEventListener("htmx:responseError", (event) => {
  const { xhr } = event.detail;
  const plain = xhr.getResponseHeader("Content-Type")?.startsWith("text/plain");
  showProblem(plain ? xhr.responseText : `The service responded with ${xhr.status}.`, partOf(event));
});
document.addEventListener("htmx:sendError", (event) => showProblem("The service cannot be reached.", partOf(event)));
document.addEventListener("htmx:afterOnLoad", (event) => { if (event.detail.xhr.status < 400) showProblem("", partOf(event)); });
document.addEventListener("htmx:afterSwap", (event) => makeTimesLocal(event.target.parentElement ?? document));
restoreKept();
makeTimesLocal(document);
document.querySelector(".side nav [aria-current]")?.scrollIntoView({ block: "nearest", inline: "nearest" });
