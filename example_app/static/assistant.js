// The assistant: ask the engine route, write the answer while it comes, and show who answered.
import { element, write } from "./format.js";

const REMEMBERED = 20; // messages sent along, so that a follow-up has something to follow

export class Assistant {
  constructor(root, words) {
    this.url = root.dataset.assistant;
    this.words = words;
    this.talk = root.querySelector("#talk");
    this.form = root.querySelector("#ask");
    this.input = root.querySelector("#question");
    this.hint = this.talk.querySelector(".hint");
    this.messages = [];
    this.module = import(document.querySelector('script[src*="/static/om.js"]').src);
    this.form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.ask(this.input.value);
    });
    root.querySelector("#chips").addEventListener("click", (event) => {
      const chip = event.target.closest("button");
      if (chip) this.ask(chip.textContent);
    });
    root.querySelector("#clear").addEventListener("click", () => {
      this.abort?.abort();
      this.messages = [];
      this.talk.replaceChildren(this.hint);
      this.input.focus();
    });
  }

  // A question in the address (?q=…) is asked at once, and only once.
  askFromAddress() {
    const address = new URL(location.href);
    const question = address.searchParams.get("q");
    if (!question) return;
    address.searchParams.delete("q");
    history.replaceState(null, "", address);
    this.ask(question);
  }

  async ask(written) {
    const question = written.trim();
    if (!question || this.abort) return;
    this.abort = new AbortController();
    const { signal } = this.abort;
    this.hint.remove();
    this.input.value = "";
    this.messages.push({ role: "user", content: question });
    const text = element("p", { class: "text", text: this.words.thinking });
    const turn = element("article", { class: "turn answer waiting", "aria-busy": "true" }, text);
    this.talk.append(element("article", { class: "turn question" }, element("p", { class: "text", text: question })), turn);
    this.#toEnd();
    let answer = "";
    const began = performance.now();
    try {
      const { ask } = await this.module;
      const { meta } = await ask(this.url, { messages: this.messages.slice(-REMEMBERED) }, {
        signal,
        onChunk: (piece) => {
          answer += typeof piece === "string" ? piece : (piece?.answer ?? "");
          turn.classList.remove("waiting");
          write(text, answer);
          this.#toEnd();
        },
      });
      this.messages.push({ role: "assistant", content: answer });
      turn.append(this.#badge(meta, performance.now() - began));
    } catch (error) {
      if (signal.aborted) return;
      turn.classList.add("failed");
      // A part of an answer stays readable; the question may be asked again as it was.
      const why = error.status === 429 ? this.words.too_many : (error.status ?? 0) < 500 && error.status ? error.message : this.words.failed;
      write(text, answer ? `${answer} … ${why}` : why);
      this.messages.pop();
    } finally {
      turn.classList.remove("waiting");
      turn.setAttribute("aria-busy", "false");
      if (this.abort?.signal === signal) this.abort = null;
      this.#toEnd();
    }
  }

  #badge(meta, took_ms) {
    const w = this.words;
    const badge = element(
      "p", { class: "badge" },
      element("span", { class: "tier", "data-tier": String(meta.tier), text: `${w[`tier${meta.tier}`] ?? ""} · ${w.tier} ${meta.tier}` }),
      element("span", { class: "engine", text: meta.engine }),
      element("span", { class: "attempts", text: count(meta.attempts, w) }),
    );
    if (meta.degraded) badge.append(element("span", { class: "mark", "data-mark": "degraded", text: w.degraded }));
    if (meta.stale) badge.append(element("span", { class: "mark", "data-mark": "stale", text: w.stale_answer }));
    badge.append(element("span", { class: "took", text: took_ms < 1000 ? `${Math.round(took_ms)} ms` : `${(took_ms / 1000).toFixed(1)} s` }));
    return badge;
  }

  #toEnd() {
    this.talk.scrollTop = this.talk.scrollHeight;
  }
}

function count(attempts, w) {
  const word = attempts === 1 ? w.attempt : w.attempts;
  return /^[a-z]/.test(word) ? `${attempts} ${word}` : `${attempts}${word}`;
}
