// The assistant: asks the engine route, writes the answer as it arrives, and shows which engine answered.
import { element, write } from "./format.js";

const CONTEXT = 20; // messages in a request, so that a follow-up question has a context

export class Assistant {
  constructor(root, texts) {
    this.url = root.dataset.assistant;
    this.texts = texts;
    this.conversation = root.querySelector("#conversation");
    this.form = root.querySelector("#ask");
    this.input = root.querySelector("#question");
    this.hint = this.conversation.querySelector(".hint");
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
      this.conversation.replaceChildren(this.hint);
      this.input.focus();
    });
  }

  // Asks the question in the address (?q=…) once, when the page has loaded.
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
    const text = element("p", { class: "text", text: this.texts.thinking });
    const turn = element("article", { class: "turn answer waiting", "aria-busy": "true" }, text);
    this.conversation.append(element("article", { class: "turn question" }, element("p", { class: "text", text: question })), turn);
    this.#scrollToEnd();
    let answer = "";
    const startedAt = performance.now();
    try {
      const { ask } = await this.module;
      const { meta } = await ask(this.url, { messages: this.messages.slice(-CONTEXT) }, {
        signal,
        onChunk: (piece) => {
          answer += typeof piece === "string" ? piece : (piece?.answer ?? "");
          turn.classList.remove("waiting");
          write(text, answer);
          this.#scrollToEnd();
        },
      });
      this.messages.push({ role: "assistant", content: answer });
      turn.append(this.#badge(meta, performance.now() - startedAt));
    } catch (error) {
      if (signal.aborted) return;
      turn.classList.add("failed");
      // The received part of an answer stays visible. The question leaves the context: users may repeat it.
      const why = error.status === 429 ? this.texts.too_many : (error.status ?? 0) < 500 && error.status ? error.message : this.texts.failed;
      write(text, answer ? `${answer} … ${why}` : why);
      this.messages.pop();
    } finally {
      turn.classList.remove("waiting");
      turn.setAttribute("aria-busy", "false");
      if (this.abort?.signal === signal) this.abort = null;
      this.#scrollToEnd();
    }
  }

  #badge(meta, took_ms) {
    const w = this.texts;
    const badge = element(
      "p", { class: "badge" },
      element("span", { class: "tier", "data-tier": String(meta.tier), text: `${w[`tier${meta.tier}`] ?? ""} · ${w.tier} ${meta.tier}` }),
      element("span", { class: "engine", text: meta.engine }),
      element("span", { class: "attempts", text: formatAttempts(meta.attempts, w) }),
    );
    if (meta.degraded) badge.append(element("span", { class: "mark", "data-mark": "degraded", text: w.degraded }));
    if (meta.stale) badge.append(element("span", { class: "mark", "data-mark": "stale", text: w.stale_answer }));
    badge.append(element("span", { class: "took", text: took_ms < 1000 ? `${Math.round(took_ms)} ms` : `${(took_ms / 1000).toFixed(1)} s` }));
    return badge;
  }

  #scrollToEnd() {
    this.conversation.scrollTop = this.conversation.scrollHeight;
  }
}

function formatAttempts(attempts, w) {
  const word = attempts === 1 ? w.attempt : w.attempts;
  return /^[a-z]/.test(word) ? `${attempts} ${word}` : `${attempts}${word}`;
}
