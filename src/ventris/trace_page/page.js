"use strict";
// Draws what trace-data holds. Needs elements.js and step_tree.js.
(() => {
  const data = JSON.parse(document.getElementById("trace-data").textContent);
  const { steps, sources, names, stats } = data;
  const byId = (id) => document.getElementById(id);
  const tokens = [...byId("output").querySelectorAll(".t")];
  const stepOf = steps.flatMap((step, index) => Array(step.count).fill(index));
  const panel = byId("step");
  const tip = byId("tip");
  // The sheet of a narrow window covers the text, so there a step opens only when somebody asks for it.
  const narrow = matchMedia("(max-width: 860px)");
  const { nameParts, token, childrenOf, reasons, drawTree, summary } =
    stepTree({ names, sources, onPoint: showTip, onLeave: hideTip, onChoose: showVisit });
  let current = 0;
  let open = false;

  // Headline numbers

  const PART_HUES = { draft: "draft1", target: "target", guide: "guide", verify: "verify", other: "other" };

  function timeShares(micros) {
    const total = sum(micros);
    if (!total) return [el("p", { class: "quiet" }, "no times were taken")];
    const parts = data.parts.map((part, i) => ({ part, spent: micros[i] })).filter(({ spent }) => spent > 0);
    return [
      el("div", { class: "shares", role: "img", "aria-label": "time by part" },
        parts.map(({ part, spent }) => el("i", { class: `h-${PART_HUES[part]}`, style: `flex:${spent} 0 0` }))),
      el("ul", { class: "parts" }, parts.map(({ part, spent }) =>
        el("li", { class: `h-${PART_HUES[part]}`, title: percent(spent / total) }, `${part} ${time(spent)}`))),
    ];
  }

  function depthBars() {
    const judged = stats.proposedByDepth;
    if (!judged.length) return el("p", { class: "quiet" }, "Nothing was drafted: every token is the target's own.");
    const dense = judged.length > 9;
    return el("div", { class: `depths ${dense ? "dense" : ""}` }, judged.map((count, i) => {
      const share = count ? stats.acceptedByDepth[i] / count : 0;
      return el("div", { title: `depth ${i + 1}: ${stats.acceptedByDepth[i]} of ${count} judged drafts kept` },
        el("span", { class: "share" }, Math.round(100 * share)),
        el("i", { style: `height:${Math.round((dense ? 42 : 28) * share)}px` }), dense ? i + 1 : `+${i + 1}`);
    }));
  }

  function drawNumbers() {
    const number = (heading, value, ...below) =>
      el("div", { class: "card number" }, el("h2", {}, heading), el("b", {}, value), below.map((line) =>
        el("p", { class: "quiet" }, line)));
    const ends = { stop: "ended by itself", length: "ended by the length limit", cancelled: "cancelled", error: "failed" };
    const guided = data.valid === null ? [] : [data.valid ? "satisfies its guides" : "does not satisfy its guides"];
    byId("numbers").append(
      number("Tokens", stats.tokens.toLocaleString("en"), ends[data.finish] ?? "", ...guided),
      number("Tokens / s", stats.perSecond ? stats.perSecond.toFixed(1) : "–", `first after ${time(stats.firstToken * 1e6)}`),
      number("Tokens / pass", stats.perStep.toFixed(2), `${plural(stats.steps, "step")} of one target pass`
        + (stats.drafted ? `; ${stats.accepted.toLocaleString("en")} of ${plural(stats.drafted, "draft")} kept` : "")),
      el("div", { class: "card number chart" }, el("h2", {}, "Drafts kept by depth, %"), depthBars()),
      el("div", { class: "card number chart" }, el("h2", {}, "Time by part"), timeShares(stats.micros)),
    );
  }

  // Timeline: one path a colour, so that thousands of steps stay light

  function drawTimeline() {
    const count = steps.length;
    const top = Math.max(4, ...steps.map((step) => step.count));
    const gap = count > 400 ? 0 : 0.16;
    const bars = sources.map(() => "");
    const surprises = steps.map((step) => {
      const known = step.visits.filter((visit) => visit.logp !== null);
      return known.length ? -sum(known.map((visit) => visit.logp)) / known.length : null;
    });
    steps.forEach((step, x) => step.visits.slice(0, step.count).forEach((visit, y) => {
      bars[visit.source] += `M${x + gap / 2} ${top - y}h${1 - gap}v${gap ? -0.93 : -1}h${gap - 1}z`;
    }));
    const most = Math.max(1, ...surprises.map((value) => value ?? 0));
    let line = "";
    surprises.forEach((value, x) => {
      if (value === null) return;
      line += `${line && surprises[x - 1] !== null ? "L" : "M"}${x + 0.5} ${(1 - value / most).toFixed(3)}`;
    });
    const lane = (name, height, ...children) =>
      svg("svg", { class: name, viewBox: `0 0 ${count || 1} ${height}`, preserveAspectRatio: "none", "aria-hidden": "true" }, children);
    const at = (event) => {
      const box = lanes.getBoundingClientRect();
      return Math.max(0, Math.min(count - 1, Math.floor(((event.clientX - box.left) / box.width) * count)));
    };
    const cursor = el("div", { class: "cursor" });
    const lanes = el("div", {
      class: "lanes", tabindex: "0", role: "slider", "aria-label": "Step", "aria-valuemin": "1", "aria-valuemax": count,
      onclick: (event) => go(at(event), true),
      onmousemove: (event) => showTip(event, stepTip(at(event))),
      onmouseleave: hideTip,
    },
    lane("gain", top, bars.map((d, i) => (d ? svg("path", { class: `bar h-${sources[i].hue}`, d }) : null))),
    lane("surprise", 1, svg("path", { d: line })), cursor);
    byId("timeline").append(lanes, el("div", { class: "scale" },
      el("span", {}, `tokens gained (up to ${Math.max(0, ...steps.map((step) => step.count))}) over their surprise, −log p`),
      el("span", {}, plural(count, "step"))));
    return { lanes, cursor };
  }

  function stepTip(index) {
    const step = steps[index];
    return [el("p", {}, el("b", {}, `Step ${index + 1}: `), plural(step.count, "token")),
      el("p", {}, step.visits.slice(0, step.count).map((visit) => token(visit.token, sources[visit.source].hue)))];
  }

  // What the target thought at a node

  function candidate([id, logp, fate], visit, drafted, hue) {
    const taken = id === visit.token;
    const notes = [`${names[id]}  token ${id}, p = ${chance(logp)}`];
    if (fate) notes.push(fate === "forbidden" ? "forbidden by a guide" : "forbidden by a guide, or pushed out of the best few");
    return el("div", { class: `candidate h-${hue} ${taken ? "taken" : ""} ${fate ? "gone" : ""}`, title: notes.join("\n") },
      el("span", { class: "mark" }, taken ? "✓" : drafted.has(id) ? "◆" : ""),
      el("span", { class: "name" }, nameParts(id)),
      el("span", { class: "track" }, el("i", { style: `width:${(100 * Math.exp(logp)).toFixed(1)}%` }),
        fate ? el("span", { class: "fate" }, fate === "forbidden" ? "forbidden" : "ruled out") : null),
      el("span", { class: "p" }, chance(logp)));
  }

  function candidateLists(step, visit) {
    const drafted = new Set(childrenOf(step, visit.node).map((child) => step.tokens[child]));
    const hue = sources[visit.source].hue;
    const seen = visit.guided ?? visit.raw;
    // The token taken may be none of the best; it closes the list that decided.
    const extra = visit.logp !== null && !seen.some(([id]) => id === visit.token) ? [[visit.token, visit.logp]] : [];
    const list = (heading, rows) => el("div", {}, heading ? el("h4", {}, heading) : null,
      rows.map((row) => candidate(row, visit, drafted, hue)));
    if (!seen.length) return el("p", { class: "quiet" }, "The verifier judged the draft as a whole; nothing was recorded here.");
    if (!visit.guided) return el("div", { class: "lists" }, list("", [...visit.raw, ...extra]));
    return el("div", { class: "lists" }, list("target", visit.raw), list("after guides", [...visit.guided, ...extra]));
  }

  function visitCard(step, visit, place) {
    const source = sources[visit.source];
    const cut = place >= step.count ? el("p", { class: "quiet" }, "cut off by a stop string") : null;
    return el("article", { class: `visit ${visit.guided ? "wide" : ""}`, id: `visit-${visit.node}` },
      el("header", {},
        el("span", {}, "after ", token(step.tokens[visit.node])),
        el("span", { class: `from h-${source.hue}`, title: source.label }, source.name)),
      candidateLists(step, visit), cut);
  }

  function showVisit(node) {
    for (const card of panel.querySelectorAll(".visit")) card.classList.toggle("near", card.id === `visit-${node}`);
    byId(`visit-${node}`)?.scrollIntoView({ block: "nearest" });
  }

  // The step view

  function drawStep() {
    panel.classList.toggle("closed", !open);
    document.documentElement.classList.toggle("opened", open);
    if (!open) {
      panel.replaceChildren(el("p", { class: "empty" }, steps.length
        ? "Choose a token or a bar to see its step, or press Enter." : "No step was recorded."));
      return;
    }
    const step = steps[current];
    const button = (label, text, action, off = false) =>
      el("button", { type: "button", "aria-label": label, title: label, disabled: off ? "" : null, onclick: action }, text);
    panel.replaceChildren(
      el("div", { class: "bar-top" }, el("h2", {}, `Step ${current + 1} of ${steps.length}`),
        button("Previous step (←)", "←", () => go(current - 1, true), current === 0),
        button("Next step (→)", "→", () => go(current + 1, true), current === steps.length - 1),
        button("Close (Esc)", "✕", close)),
      el("p", {}, summary(step)),
      drawTree(step),
      ...[reasons(step)].filter(Boolean),
      el("h3", {}, "What the target thought"),
      el("div", { class: "visits" }, step.visits.map((visit, place) => visitCard(step, visit, place))),
      el("h3", {}, "Time"),
      ...timeShares(step.micros),
      ...(step.batch > 1 ? [el("p", { class: "quiet" }, `The pass was shared by ${step.batch} requests.`)] : []),
    );
    panel.scrollTop = 0;
  }

  // Moving about

  function go(index, opening = open) {
    if (!steps.length) return;
    const before = steps[current];
    for (let i = 0; i < before.count; i += 1) tokens[before.first + i].classList.remove("current");
    current = Math.max(0, Math.min(steps.length - 1, index));
    open = opening;
    const step = steps[current];
    for (let i = 0; i < step.count; i += 1) tokens[step.first + i].classList.add("current");
    timeline.cursor.style.left = `${((current + 0.5) / steps.length) * 100}%`;
    timeline.cursor.style.width = `${100 / steps.length}%`;
    timeline.lanes.setAttribute("aria-valuenow", current + 1);
    timeline.lanes.setAttribute("aria-valuetext", `step ${current + 1}, ${plural(step.count, "token")}`);
    byId("announcer").textContent = open ? `Step ${current + 1}. ${summary(step)}` : "";
    hideTip();
    drawStep();
    history.replaceState(null, "", open ? `#step-${current + 1}` : location.pathname + location.search);
  }

  function close() {
    go(current, false);
  }

  function reveal() {
    tokens[steps[current]?.first]?.scrollIntoView({ block: "nearest" });
  }

  function followHash() {
    const found = /^#step-(\d+)$/.exec(location.hash);
    if (found) {
      go(Number(found[1]) - 1, true);
      reveal();
    }
    return Boolean(found);
  }

  document.addEventListener("keydown", (event) => {
    if (event.altKey || event.ctrlKey || event.metaKey) return;
    const onControl = event.target instanceof Element && event.target.closest("button, summary, a, input");
    const moves = { ArrowLeft: current - 1, ArrowRight: current + 1, Home: 0, End: steps.length - 1 };
    if (event.key in moves) go(moves[event.key]);
    else if (event.key === "Enter" && !onControl) go(current, true);
    else if (event.key === "Escape") close();
    else return;
    event.preventDefault();
    if (event.key !== "Escape") reveal();
  });

  // The output: one listener for all tokens

  const tokenAt = (event) => {
    const span = event.target instanceof Element && event.target.closest(".t");
    return span ? tokens.indexOf(span) : -1;
  };

  function tokenTip(index) {
    const step = steps[stepOf[index]];
    const visit = step.visits[index - step.first];
    const source = sources[visit.source];
    return [
      el("p", {}, token(visit.token, source.hue), visit.logp === null ? "" : ` p = ${chance(visit.logp)}`),
      el("p", { class: "quiet" }, `${source.label} · step ${stepOf[index] + 1} · token ${visit.token}`),
      candidateLists(step, visit),
    ];
  }

  function showTip(event, content) {
    tip.replaceChildren(...content.filter(Boolean));
    tip.hidden = false;
    const { width, height } = tip.getBoundingClientRect();
    const x = Math.min(event.clientX + 14, innerWidth - width - 8);
    const below = event.clientY + 20;
    const y = below + height + 8 < innerHeight ? below : event.clientY - height - 14;
    tip.style.transform = `translate(${Math.max(8, x)}px, ${Math.max(8, y)}px)`;
  }

  function hideTip() {
    tip.hidden = true;
  }

  function watchOutput() {
    const output = byId("output");
    output.addEventListener("mouseover", (event) => {
      const index = tokenAt(event);
      if (index < 0) hideTip();
      else showTip(event, tokenTip(index));
    });
    output.addEventListener("mouseleave", hideTip);
    output.addEventListener("click", (event) => {
      const index = tokenAt(event);
      // A click that ends a selection is meant for copying.
      if (index >= 0 && getSelection().isCollapsed) {
        go(stepOf[index], true);
        const step = steps[stepOf[index]];
        if (!narrow.matches) showVisit(step.visits[index - step.first].node);
      }
    });
    addEventListener("scroll", hideTip, { passive: true });
  }

  function watchLegend() {
    document.querySelectorAll(".key").forEach((key, source) => key.addEventListener("click", () => {
      const shown = key.getAttribute("aria-pressed") === "false";
      key.setAttribute("aria-pressed", shown);
      tokens.forEach((span, i) => {
        const step = steps[stepOf[i]];
        if (step.visits[i - step.first].source === source) span.classList.toggle("faded", !shown);
      });
    }));
  }

  document.documentElement.classList.add("scripted");
  drawNumbers();
  const timeline = drawTimeline();
  watchOutput();
  watchLegend();
  addEventListener("hashchange", followHash);
  if (!followHash()) {
    const gains = steps.map((step) => step.count);
    go(narrow.matches ? 0 : Math.max(0, gains.indexOf(Math.max(...gains))), false);
    // A wide window has room for a step beside the text: the one that gained most shows what it is about.
    if (!narrow.matches && steps.length) {
      open = true;
      drawStep();
    }
  }
  document.documentElement.dataset.ready = "yes";
})();
