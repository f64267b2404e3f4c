"use strict";
// One configuration and its conversation: menus, the coloured answer, live figures, the tree of a step.

const DRAFT_HUES = 6;
const GUIDE_SOURCE = /guide/;

class Lane {
  constructor(label, offered, parts, { onPoint, onLeave, onSources }) {
    this.label = label;
    this.messages = [];
    this.names = {};
    this.sources = [{ name: "target", label: "the target's own pick", hue: "target" }];
    this.steps = [];
    this.shown = -1;
    this.onSources = onSources;
    this.tree = stepTree({ names: this.names, sources: this.sources, onPoint, onLeave });
    this.#build(offered, parts);
  }

  // Menus

  #build(offered, parts) {
    const id = (name) => `${name}-${this.label || "only"}`;
    const menu = (name, options, chosen) => el("label", {}, name, el("select", { id: id(name.toLowerCase()) },
      options.map(([value, text]) => el("option", { value, selected: value === chosen ? "" : null }, text))));
    const plain = (values) => values.map((value) => [value, value]);
    const drafter = menu("Drafter", plain(offered.drafts), parts.draft);
    const verifier = menu("Verifier", [["", "automatic"], ...plain(offered.verifiers)], "");
    const policy = menu("Policy", [["", "automatic"], ...plain(offered.policies)], "");
    const guide = menu("Guide", [["", "none"], ...plain(offered.guides)], "");
    [this.drafter, this.verifier, this.policy, this.guide] =
      [drafter, verifier, policy, guide].map((field) => field.querySelector("select"));
    this.rule = el("textarea", { rows: 3, spellcheck: "false", id: id("rule"), "aria-label": "What the guide is told" });
    this.rule.hidden = true;
    this.guide.addEventListener("change", () => this.#showRule());
    this.badge = el("p", { class: "badge", hidden: "" });
    this.log = el("div", { class: "log text", role: "log", tabindex: "0", "aria-label": `Conversation ${this.label}`.trim() });
    this.log.addEventListener("click", (event) => this.#choose(event));
    this.log.addEventListener("keydown", (event) => this.#turn(event));
    this.figures = Object.fromEntries(["rate", "gain", "kept", "first"].map((name) => [name, el("b", {}, "–")]));
    const figure = (value, text, title) => el("div", { class: "number", title }, value, el("p", { class: "quiet" }, text));
    this.heading = el("h3", {}, "Step");
    this.summary = el("p", {}, "Send a message to see its draft trees here.");
    this.drawing = el("div");
    this.back = el("button", { type: "button", "aria-label": "Previous step", onclick: () => this.show(this.shown - 1) }, "←");
    this.on = el("button", { type: "button", "aria-label": "Next step", onclick: () => this.show(this.shown + 1) }, "→");
    this.element = el("section", { class: "card lane", "aria-label": this.label ? `Configuration ${this.label}` : "Chat" },
      el("div", { class: "parts-row" }, this.label ? el("h2", { class: "lane-name" }, this.label) : null, drafter, verifier, policy, guide),
      el("div", { class: "talk" }, this.rule, this.log, el("div", { class: "figures" },
        figure(this.figures.rate, "tokens / s", "since the first token of this answer"),
        figure(this.figures.gain, "tokens / pass", "tokens gained by one pass of the target"),
        figure(this.figures.kept, "drafts kept", "of all tokens that the drafter proposed"),
        figure(this.figures.first, "first token", "time from sending to the first token")), this.badge),
      el("div", { class: "step-view" },
        el("div", { class: "bar-top" }, this.heading, this.back, this.on), this.summary, this.drawing));
    this.#showSteps();
  }

  #showRule() {
    const form = guideForm(this.guide.value);
    this.rule.hidden = !this.guide.value || !form.usual;
    this.rule.placeholder = form.hint;
    this.rule.setAttribute("aria-label", form.hint);
    this.rule.value = form.usual;
  }

  parts() {
    const own = { trace: true, draft: this.drafter.value };
    if (this.verifier.value) own.verifier = this.verifier.value;
    if (this.policy.value) own.policy = this.policy.value;
    if (this.guide.value) {
      own.guides = [{ [this.guide.value]: guideForm(this.guide.value).options(this.rule.value) }];
    }
    return own;
  }

  clear() {
    this.messages = [];
    this.steps = [];
    this.shown = -1;
    this.log.replaceChildren();
    this.badge.hidden = true;
    for (const figure of Object.values(this.figures)) figure.textContent = "–";
    this.#showSteps();
  }

  // An answer. Resolves to { text, stats } when it has ended, whole or stopped; errors are shown here.

  async answer(prompt, { model, key, settings, signal }) {
    const said = { role: "user", content: prompt };
    this.log.append(el("p", { class: "said" }, prompt));
    this.line = this.log.appendChild(el("p", { class: "answer", "aria-busy": "true" }));
    this.steps = [];
    this.shown = -1;
    this.badge.hidden = true;
    this.live = { sent: performance.now(), first: 0, tokens: 0, passes: 0, drafted: 0, kept: 0 };
    const pieces = new Pieces();
    let [text, stats, finish, stopped] = ["", null, null, false];
    this.#scroll();
    try {
      const body = { model, messages: [...this.messages, said], stream: true, ventris: this.parts(), ...settings };
      const response = await ask("/v1/chat/completions", key, body, signal);
      for await (const chunk of readEvents(response)) {
        if (chunk.error) throw new ServerError(0, chunk.error);
        const choice = chunk.choices[0];
        const own = chunk.ventris ?? {};
        if (own.step) this.#addStep(own.step, own.tokens.length);
        const added = choice?.delta?.content ?? "";
        text += added;
        this.#write(pieces.push(added, own.tokens ?? [], this.steps.length - 1));
        finish = choice?.finish_reason ?? finish;
        if (own.guarantee) this.#promise(own.guarantee, own.valid);
        stats = own.stats ?? stats;
        this.#figures(stats);
      }
    } catch (error) {
      stopped = error.name === "AbortError";
      if (stopped) this.line.append(el("span", { class: "quiet" }, " (stopped)"));
      else this.#fail(error);
      finish = stopped ? "stopped" : null;
    }
    this.#write(pieces.finish());
    this.line.removeAttribute("aria-busy");
    if (finish === "length") this.line.append(el("span", { class: "quiet", title: "the longest answer allowed" }, " …"));
    if (finish) this.messages.push(said, { role: "assistant", content: text });
    return { text, stats, finish };
  }

  #fail(error) {
    const where = error.param ? ` (${error.param})` : "";
    this.line.append(el("span", { class: "trouble", role: "alert" }, `${error.message}${where}`));
  }

  #write(pieces) {
    const near = this.log.scrollHeight - this.log.scrollTop - this.log.clientHeight < 60;
    for (const { text, source, step } of pieces) {
      const begins = step !== null && step !== this.line.lastElementChild?.step;
      const span = el("span", { class: `t h-${this.#hue(source)} ${begins ? "first" : ""}` }, text);
      span.step = step;
      span.steps = this.steps;
      this.line.append(span);
    }
    if (near) this.#scroll();
  }

  #scroll() {
    this.log.scrollTop = this.log.scrollHeight;
  }

  // Where tokens come from

  #source(name, drafter = false) {
    let number = this.sources.findIndex((source) => source.name === name);
    if (number < 0) {
      const drafts = this.sources.filter((source) => source.hue.startsWith("draft")).length;
      const [hue, label] = drafter ? [`draft${(drafts % DRAFT_HUES) + 1}`, `accepted draft: ${name || "unnamed"}`]
        : GUIDE_SOURCE.test(name) ? ["guide", "a guide left no other choice"] : ["judge", name];
      number = this.sources.push({ name, label, hue }) - 1;
      this.onSources();
    }
    return number;
  }

  #hue(name) {
    return this.sources[this.#source(name, true)].hue;
  }

  #addStep(step, count) {
    Object.assign(this.names, step.names);
    const drafter = step.drafter === null ? null : this.#source(step.drafter, true);
    const visits = step.visits.map((visit) => ({ ...visit, source: this.#source(visit.source) }));
    this.steps.push({ ...step, drafter, visits, count: Math.max(count, visits.length) });
    const live = this.live;
    live.passes += 1;
    live.drafted += step.tokens.length - 1;
    live.kept += step.kept.length - 1;
    live.tokens += visits.length;
    live.first ||= performance.now();
    this.show(this.steps.length - 1, false);
  }

  // Figures: live ones are this page's own count; at the end the server's take their place

  #figures(stats) {
    const { sent, first, tokens, passes, drafted, kept } = this.live;
    const seconds = (performance.now() - first) / 1000;
    // The first pass's tokens came at the beginning of the time.
    const gained = tokens - (this.steps[0]?.visits.length ?? 0);
    const rate = stats?.tokens_per_second ?? (first && seconds > 0.05 ? gained / seconds : 0);
    const wait = stats ? stats.first_token_seconds : first ? (first - sent) / 1000 : 0;
    const share = stats ? [stats.accepted, stats.drafted] : [kept, drafted];
    this.figures.rate.textContent = rate ? rate.toFixed(1) : "–";
    this.figures.gain.textContent = passes ? (stats?.tokens_per_step ?? tokens / passes).toFixed(2) : "–";
    this.figures.kept.textContent = share[1] ? percent(share[0] / share[1]) : "–";
    this.figures.first.textContent = wait ? time(Math.round(wait * 1e6)) : "–";
  }

  #promise({ exact, statement }, valid) {
    const kind = exact ? "exact" : "approximate";
    const form = valid === undefined ? "" : valid ? "; the answer satisfies its guides" : "; the answer does not satisfy its guides";
    this.badge.className = `badge ${kind}`;
    this.badge.replaceChildren(el("b", {}, kind), ` ${statement.replace(`${kind}: `, "")}${form}`);
    this.badge.hidden = false;
  }

  // Steps

  show(number, byHand = true) {
    this.shown = Math.max(0, Math.min(this.steps.length - 1, number));
    if (byHand) this.#mark();
    // While an answer streams, one drawing a frame is enough.
    if (byHand) this.#showSteps();
    else if (!this.waiting) {
      this.waiting = true;
      requestAnimationFrame(() => {
        this.waiting = false;
        this.#showSteps();
      });
    }
  }

  #mark() {
    for (const span of this.log.querySelectorAll(".t")) {
      span.classList.toggle("current", span.steps === this.steps && span.step === this.shown);
    }
  }

  #showSteps() {
    const step = this.steps[this.shown];
    this.back.disabled = this.shown <= 0;
    this.on.disabled = this.shown >= this.steps.length - 1;
    this.heading.textContent = step ? `Step ${this.shown + 1} of ${this.steps.length}` : "Steps";
    if (!step) {
      this.summary.textContent = "Send a message to see its draft trees here.";
      this.drawing.replaceChildren();
      return;
    }
    this.summary.textContent = this.tree.summary(step);
    this.drawing.replaceChildren(...[this.tree.drawTree(step), this.tree.reasons(step)].filter(Boolean));
  }

  #choose(event) {
    const span = event.target instanceof Element ? event.target.closest(".t") : null;
    if (!span || !getSelection().isCollapsed || span.step === null) return;
    this.steps = span.steps;
    this.show(span.step);
  }

  #turn(event) {
    const moves = { ArrowLeft: this.shown - 1, ArrowRight: this.shown + 1, Home: 0, End: this.steps.length - 1 };
    if (!(event.key in moves) || event.altKey || event.ctrlKey || event.metaKey || !this.steps.length) return;
    event.preventDefault();
    this.show(moves[event.key]);
    this.log.querySelector(".t.current")?.scrollIntoView({ block: "nearest" });
  }
}
