// For the page that replaces one that failed: sends its report without leaving the page.
import { report } from "./problems.js";

const form = document.querySelector("form");
const button = form.querySelector("button");
const line = document.querySelector("[role=status]");

/** The methods of a toast that problems.js calls, for the line below the buttons. */
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
