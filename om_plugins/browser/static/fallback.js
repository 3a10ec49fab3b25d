// The page that stands in for one that failed: its report is sent without leaving it.
import { report } from "./problems.js";

const form = document.querySelector("form");
const button = form.querySelector("button");
const line = document.querySelector("[role=status]");

/** What problems.js asks of a toast, for the one line below the buttons. */
const place = {
  options: { message: document.title },
  update: ({ message }) => { line.textContent = message; },
  complete: (message) => { line.textContent = message; },
  fail: (message) => {
    line.textContent = message;
    button.disabled = false;
  },
};

form.addEventListener("submit", (event) => {
  event.preventDefault();
  button.disabled = true;
  report({ toast: place, value: form.elements.reference.value });
});
