"use strict";
// Draws what trace-data holds. All token text goes into the page as text nodes, never as markup.
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
  let current = 0;
  let open = false;

  // Building elements

  function fill(node, attributes, children) {
    for (const [key, value] of Object.entries(attributes)) {
      if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
      else if (value !== null && value !== false) node.setAttribute(key, value);
    }
    node.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined));
    return node;
  }
  const el = (name, attributes = {}, ...children) => fill(document.createElement(name), attributes, children);
  const svg = (name, attributes = {}, ...children) =>
    fill(document.createElementNS("http://www.w3.org/2000/svg", name), attributes, children);

  // Words and numbers

  const SIGNS = /([␣↵⇥␍]|⟨[^⟩]*⟩)/u;
  const nameParts = (id) => names[id].split(SIGNS).filter(Boolean)
    .map((part) => (SIGNS.test(part) ? el("span", { class: "ghost" }, part) : part));
  const token = (id, hue = "") => el("code", { class: `token ${hue && `h-${hue}`}` }, nameParts(id));
  const shorten = (text, limit) => {
    const letters = [...text];
    return letters.length > limit ? `${letters.slice(0, limit - 1).join("")}…` : text;
  };
  const chance = (logp) => {
    const p = Math.exp(logp);
    return p >= 0.0995 ? p.toFixed(2) : p >= 0.0005 ? p.toFixed(3) : "<0.001";
  };
  const atMost = (logp) => Math.max(0.001, Math.exp(logp)).toFixed(3);
  const percent = (share) => (share > 0 && share < 0.01 ? "<1%" : `${Math.round(100 * share)}%`);
  const plural = (count, word) => `${count.toLocaleString("en")} ${word}${count === 1 ? "" : "s"}`;
  const time = (micros) => (micros >= 1e6 ? `${(micros / 1e6).toFixed(2)} s` : micros >= 1e4
    ? `${Math.round(micros / 1e3)} ms` : micros >= 100 ? `${(micros / 1e3).toFixed(1)} ms` : `${micros} µs`);
  const sum = (values) => values.reduce((total, value) => total + value, 0);

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

  const childrenOf = (step, node) => step.parents.flatMap((parent, child) => (parent === node && child ? [child] : []));

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

  // Why a draft was not kept

  function verdicts(step) {
    const kept = new Set(step.kept);
    const visits = new Map(step.visits.map((visit) => [visit.node, visit]));
    return step.tokens.map((id, node) => {
      if (node === 0) return { state: "root" };
      const visit = visits.get(step.parents[node]);
      if (kept.has(node)) return { state: "kept", visit };
      return visit ? { state: "refused", visit } : { state: "unjudged" };
    });
  }

  function logpAt(visit, id) {
    if (!visit) return null;
    if (visit.token === id && visit.logp !== null) return visit.logp;
    return (visit.guided ?? visit.raw).find(([other]) => other === id)?.[1] ?? null;
  }

  function chanceAt(visit, id) {
    const known = logpAt(visit, id);
    if (known !== null) return `p ${chance(known).replace("<", "< ")}`;
    if (visit?.raw.some(([other, , fate]) => other === id && fate === "forbidden")) return "forbidden";
    const seen = visit ? visit.guided ?? visit.raw : [];
    return seen.length ? `p < ${atMost(seen[seen.length - 1][1])}` : "";
  }

  function reason(visit) {
    const best = (visit.guided ?? visit.raw)[0]?.[0];
    const source = sources[visit.source];
    const p = visit.logp === null ? [] : [` (p = ${chance(visit.logp)})`];
    const chosen = [token(visit.token, source.hue), ...p];
    if (source.hue === "guide") return ["guides left only ", ...chosen];
    if (source.hue === "judge") return [`${source.name} chose `, ...chosen];
    if (visit.token !== best) return [best === undefined ? "the verifier took " : "the target's draw was ", ...chosen];
    return [visit.guided && visit.raw[0]?.[0] !== best ? "under its guides the target preferred " : "the target preferred ", ...chosen];
  }

  function reasons(step) {
    const refused = new Map();
    let never = 0;
    verdicts(step).forEach(({ state, visit }, node) => {
      if (state === "unjudged") never += 1;
      if (state === "refused") refused.set(visit, [...(refused.get(visit) ?? []), node]);
    });
    const lines = [...refused].map(([visit, nodes]) => el("li", {},
      nodes.flatMap((node, i) => [i ? ", " : "", token(step.tokens[node])]), " after ", token(step.tokens[visit.node]),
      ": ", reason(visit)));
    if (never) lines.push(el("li", { class: "never" }, `${plural(never, "draft")} never judged: a token before ${never === 1 ? "it" : "them"} was not kept`));
    return lines.length ? el("ul", { class: "reasons" }, lines) : null;
  }

  // The draft tree: the kept path runs straight along the top, branches hang below it

  const NODE = { height: 26, row: 50, gap: 26, letter: 7.9, letters: 16 };

  function layOut(step) {
    const marks = verdicts(step);
    const nodes = step.tokens.map((id, i) => ({ id, i, ...marks[i], depth: 0, below: childrenOf(step, i) }));
    const last = step.visits[step.visits.length - 1];
    // The target's own token at the end of the path is no draft, so it is not in the tree yet.
    if (last && !step.kept.some((node) => step.parents[node] === last.node && node)) {
      nodes.push({ id: last.token, i: nodes.length, state: "own", visit: last, depth: 0, below: [], parent: last.node });
      nodes[last.node].below = [nodes.length - 1, ...nodes[last.node].below];
    }
    const kept = new Set(step.kept);
    const widths = [];
    let row = 0;
    const place = (node, depth) => {
      node.depth = depth;
      node.row = row;
      node.label = shorten(names[node.id], NODE.letters);
      node.width = Math.max(30, [...node.label].length * NODE.letter + 18);
      widths[depth] = Math.max(widths[depth] ?? 62, node.width);
      const order = [...node.below].sort((a, b) => kept.has(b) - kept.has(a));
      order.forEach((child, i) => {
        if (i) row += 1;
        place(nodes[child], depth + 1);
      });
    };
    place(nodes[0], 0);
    const left = widths.map((_, depth) => sum(widths.slice(0, depth)) + depth * NODE.gap);
    for (const node of nodes) {
      node.x = left[node.depth] + 1;
      node.y = 24 + node.row * NODE.row;
    }
    const end = widths.length - 1;
    return { nodes, left, width: left[end] + widths[end] + 4, height: 24 + row * NODE.row + 48 };
  }

  const STATES = {
    root: "the last token before this step", kept: "drafted and kept", refused: "drafted and refused",
    unjudged: "drafted, but never judged", own: "not drafted",
  };

  function drawTree(step) {
    const { nodes, left, width, height } = layOut(step);
    const hueOf = (node) => (node.visit ? sources[node.visit.source].hue : "target");
    const edges = nodes.slice(1).map((node) => {
      const parent = nodes[node.parent ?? step.parents[node.i]];
      const from = [parent.x + parent.width, parent.y + NODE.height / 2];
      const to = [node.x, node.y + NODE.height / 2];
      const bend = to[0] - NODE.gap / 2;
      const d = from[1] === to[1] ? `M${from}H${to[0]}` : `M${from}H${bend - 9}C${bend + 3} ${from[1]} ${bend - 7} ${to[1]} ${bend + 7} ${to[1]}H${to[0]}`;
      return svg("path", { class: `edge ${node.state} h-${hueOf(node)}`, d });
    });
    // Kept edges last, so that they lie on top where edges run together.
    edges.sort((a, b) => a.classList.contains("kept") - b.classList.contains("kept"));
    const boxes = nodes.map((node) => {
      const below = node.state === "root" ? "" : node.state === "unjudged" ? "not judged" : chanceAt(node.visit, node.id);
      return svg("g", {
        class: `node ${node.state} h-${hueOf(node)}`, transform: `translate(${node.x} ${node.y})`,
        onmousemove: (event) => showTip(event, nodeTip(step, node)), onmouseleave: hideTip,
        onclick: () => showVisit(node.state === "own" ? node.parent : node.i),
      },
      svg("rect", { width: node.width, height: NODE.height, rx: 6 }),
      svg("text", { class: "name", x: 9, y: NODE.height / 2 + 0.5 }, node.label),
      svg("text", { class: "small", x: 3, y: NODE.height + 9 }, below));
    });
    const heads = left.map((x, depth) => svg("text", { class: "small", x: x + 3, y: 8 }, depth ? `+${depth}` : "last token"));
    return el("div", { class: "tree" }, svg("svg", { width, height, role: "img", "aria-label": summary(step) }, heads, edges, boxes));
  }

  function nodeTip(step, node) {
    const where = node.visit ? chanceAt(node.visit, node.id) : "";
    const drafted = node.state !== "root" && node.state !== "own";
    return [
      el("p", {}, token(node.id), ` token ${node.id}`),
      el("p", { class: "quiet" }, [STATES[node.state], where].filter(Boolean).join(", ")),
      drafted ? el("p", { class: "quiet" }, `the drafter's own estimate: ${step.confidence[node.i]}`) : null,
      node.state === "refused" ? el("p", {}, reason(node.visit)) : null,
    ];
  }

  function showVisit(node) {
    for (const card of panel.querySelectorAll(".visit")) card.classList.toggle("near", card.id === `visit-${node}`);
    byId(`visit-${node}`)?.scrollIntoView({ block: "nearest" });
  }

  // The step view

  function summary(step) {
    const drafts = step.tokens.length - 1;
    const gained = `${plural(step.count, "token")} from one target pass.`;
    if (!drafts) return `Nothing was drafted: ${gained}`;
    const kept = step.kept.length - 1;
    const shape = new Set(step.parents).size < step.parents.length ? "in a tree" : drafts > 1 ? "in a chain" : "";
    const who = sources[step.drafter].name || "The drafter";
    return `${who} drafted ${plural(drafts, "token")} ${shape}`.trimEnd() + `, ${kept || "none"} kept: ${gained}`;
  }

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
