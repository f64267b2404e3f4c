"use strict";
// The page: who is asked, what is asked, one configuration or two.
(() => {
  const byId = (id) => document.getElementById(id);
  const [form, prompt, tip, trouble, verdict] = ["composer", "prompt", "tip", "trouble", "verdict"].map(byId);
  let key = "";
  let model = null;
  let lanes = [];
  let running = null;

  // Connecting

  async function connect() {
    try {
      const response = await ask("/v1/models", key);
      model = (await response.json()).data[0];
    } catch (error) {
      byId("model").textContent = "Not connected";
      byId("key-form").hidden = error.status !== 401;
      if (error.status === 401) byId("key").focus();
      tell(error.status === 401 && !key ? "" : error instanceof ServerError ? error.message : `the server cannot be reached: ${error.message}`);
      return;
    }
    byId("key-form").hidden = true;
    tell("");
    const own = model.ventris;
    byId("model").textContent = model.id;
    byId("facts").textContent = [own.dtype, `${own.context.toLocaleString("en")} tokens of context`,
      `${own.vocabulary.toLocaleString("en")} in the vocabulary`].filter(Boolean).join(" · ");
    for (const [field, value] of [["temperature", own.defaults.temperature], ["max-tokens", own.defaults.max_new_tokens], ["seed", own.defaults.seed]]) {
      if (value !== undefined) byId(field).value = value;
    }
    makeLanes();
    document.documentElement.dataset.ready = "yes";
    prompt.focus();
  }

  function tell(message) {
    trouble.textContent = message;
    trouble.hidden = !message;
  }

  // Lanes

  function makeLanes() {
    const two = byId("compare").checked;
    byId("together-label").hidden = !two;
    verdict.hidden = true;
    const own = model.ventris;
    const drafters = own.drafts.filter((name) => name !== "none");
    const best = typeof own.defaults.draft === "string" && own.drafts.includes(own.defaults.draft) ? own.defaults.draft : drafters[0] ?? "none";
    const hooks = { onPoint: showTip, onLeave: hideTip, onSources: drawLegend };
    lanes = two ? [new Lane("A", own, { draft: "none" }, hooks), new Lane("B", own, { draft: best }, hooks)]
      : [new Lane("", own, { draft: best }, hooks)];
    byId("lanes").replaceChildren(...lanes.map((lane) => lane.element));
    byId("lanes").classList.toggle("two", two);
    drawLegend();
  }

  function drawLegend() {
    const seen = new Map(lanes.flatMap((lane) => lane.sources.map((source) => [source.label, source.hue])));
    byId("legend").replaceChildren(...[...seen].map(([label, hue]) =>
      el("span", { class: `key h-${hue}`, role: "listitem" }, el("i"), label)));
  }

  // Asking

  function settings() {
    const number = (id, what) => {
      const value = byId(id).value.trim();
      if (value !== "" && !byId(id).checkValidity()) throw new Error(`${what}: ${byId(id).validationMessage}`);
      return value === "" ? null : Number(value);
    };
    return {
      temperature: number("temperature", "Temperature"), seed: number("seed", "Seed"),
      max_tokens: number("max-tokens", "Longest answer"),
    };
  }

  async function send() {
    const text = prompt.value.trim();
    if (running || !text || !model) return;
    tell("");
    verdict.hidden = true;
    let asked;
    try {
      asked = { model: model.id, key, settings: settings() };
    } catch (error) {
      tell(error.message);
      return;
    }
    running = new AbortController();
    asked.signal = running.signal;
    prompt.value = "";
    busy(true);
    const answers = [];
    if (byId("together").checked) answers.push(...await Promise.all(lanes.map((lane) => lane.answer(text, asked))));
    else for (const lane of lanes) if (!running.signal.aborted) answers.push(await lane.answer(text, asked));
    running = null;
    busy(false);
    byId("announcer").textContent = answers.map((answer) => answer.text).join("\n");
    if (answers.length === 2) compare(...answers);
    prompt.focus();
  }

  function busy(is) {
    document.documentElement.dataset.busy = is ? "yes" : "no";
    byId("send").disabled = is;
    byId("stop").disabled = !is;
    byId("clear").disabled = is;
    byId("compare").disabled = is;
  }

  function compare(a, b) {
    if (!a.stats || !b.stats) return;
    const ratio = b.stats.tokens_per_second / a.stats.tokens_per_second;
    const speed = ratio >= 1 ? `B wrote ${ratio.toFixed(2)} times as many tokens a second as A`
      : `A wrote ${(1 / ratio).toFixed(2)} times as many tokens a second as B`;
    let same = 0;
    while (same < a.text.length && a.text[same] === b.text[same]) same += 1;
    const texts = a.text === b.text ? "both texts are the same" : `the texts part after ${plural(same, "character")}`;
    const note = byId("together").checked ? " They ran at once, so each slowed the other." : "";
    verdict.textContent = `${speed}; ${texts}.${note}`;
    verdict.hidden = false;
  }

  function stop() {
    running?.abort();
  }

  // What the pointer is on

  function showTip(event, content) {
    tip.replaceChildren(...content.filter(Boolean));
    tip.hidden = false;
    const { width, height } = tip.getBoundingClientRect();
    const x = Math.max(8, Math.min(event.clientX + 14, innerWidth - width - 8));
    const below = event.clientY + 20;
    tip.style.left = `${x}px`;
    tip.style.top = `${Math.max(8, below + height + 8 < innerHeight ? below : event.clientY - height - 14)}px`;
  }

  function hideTip() {
    tip.hidden = true;
  }

  form.addEventListener("submit", (event) => {
    event.preventDefault();
    send();
  });
  prompt.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    send();
  });
  byId("key-form").addEventListener("submit", (event) => {
    event.preventDefault();
    key = byId("key").value.trim();
    connect();
  });
  byId("stop").addEventListener("click", stop);
  byId("clear").addEventListener("click", () => {
    lanes.forEach((lane) => lane.clear());
    verdict.hidden = true;
    prompt.focus();
  });
  byId("compare").addEventListener("change", () => model && makeLanes());
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape") stop();
  });
  addEventListener("scroll", hideTip, { passive: true });
  document.documentElement.classList.add("scripted");
  connect();
})();
